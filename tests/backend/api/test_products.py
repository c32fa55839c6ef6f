"""Products by the API: made, read, listed, replaced, deleted; by their owner alone."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backend.errors import StorageUnavailable
from backend.jobs.faults import Fault
from backend.products import erasing, store
from backend.products.store import Output
from backend.storage.local import LocalStorage
from backend.sweep import sweep
from backend.views import now
from tests.backend.api.conftest import Server
from tests.backend.api.test_access import key

PRODUCTS = "/v1/products"
A, B, C = (f"https://a.example/{name}.jpg" for name in "abc")


def create(api: httpx.Client, **values: Any) -> Any:
    answer = api.post(PRODUCTS, json={"serial_number": "1", "name": "Lamp", "image_urls": [A, B]} | values)
    assert answer.status_code == 201, answer.text
    return answer.json()


def give_output(server: Server, product: Any, url: str, name: str) -> str:
    """An object that was made of the image at `url`."""
    object_key = f"products/{product['id']}/{name}.webp"
    server.resources.storage.put(object_key, name.encode(), "image/webp")
    thumbnail = {"key": object_key, "width": 20, "height": 15, "content_type": "image/webp", "bytes": 1}
    output = Output(object_key, "image/webp", 1, "5a" * 32, 40, 30, 0.5, (thumbnail,))
    with server.resources.db.session_scope() as session:
        store.record_output(session, UUID(product["id"]), url, output, job_id=uuid4(), now=now())
    return object_key


def keys(server: Server) -> set[str]:
    return {one.key for one in server.resources.storage.walk("products/")}


def test_a_product_is_made_read_replaced_and_deleted(api: httpx.Client, server: Server) -> None:
    # Given one that is made
    answer = api.post(PRODUCTS, json={"serial_number": " 1 ", "name": " Lamp\r\n ", "image_urls": [A, B, A]})
    made, where = answer.json(), answer.headers["location"]
    assert (answer.status_code, made["serial_number"], made["name"]) == (201, "1", "Lamp")
    assert [(one["input_url"], one["status"], one["output_url"]) for one in made["images"]] == [
        (A, "pending", None), (B, "pending", None),
    ]  # fmt: skip
    assert api.get(where).json() == made
    assert api.get(PRODUCTS).json() == {"results": [made], "next": None, "previous": None}
    # When something was made of one of its images, and nothing of the other
    give_output(server, made, A, "a")
    with server.resources.db.session_scope() as session:
        fault = Fault("reference_unavailable", "It answered 404.", retryable=True)
        store.record_failure(session, UUID(made["id"]), B, fault, job_id=None, now=now())
    # Then it is told of each
    good, bad = api.get(where).json()["images"]
    assert (good["status"], good["width"], good["scale"], good["error"]) == ("completed", 40, 0.5, None)
    assert api.get(good["output_url"]).content == b"a"
    assert api.get(good["thumbnails"][0]["url"]).content == b"a"
    assert (bad["status"], bad["output_url"], bad["error"]["code"]) == (
        "failed", None, "reference_unavailable",
    )  # fmt: skip
    # When it is replaced, then what is still named stays, and what isn't goes with its object
    give_output(server, made, B, "b")
    answer = api.put(where, json={"serial_number": "2", "name": "Lamp 2", "image_urls": [C, B]})
    replaced = answer.json()
    assert (answer.status_code, replaced["id"], replaced["serial_number"]) == (200, made["id"], "2")
    assert [(one["input_url"], one["status"]) for one in replaced["images"]] == [
        (C, "pending"), (B, "completed"),
    ]  # fmt: skip
    assert api.get(where).json()["images"][1]["id"] == bad["id"]
    assert keys(server) == {f"products/{made['id']}/b.webp"}
    # And when it is deleted, all of it is gone
    assert api.delete(where).status_code == 204
    assert api.get(where).status_code == api.delete(where).status_code == 404
    assert api.put(where, json={"serial_number": "1", "name": "Lamp"}).status_code == 404
    assert api.get(PRODUCTS).json()["results"] == []
    assert keys(server) == set()


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ({"serial_number": " "}, "#/serial_number"),
        ({"serial_number": "a\nb"}, "#/serial_number"),
        ({"serial_number": "x" * 101}, "#/serial_number"),
        ({"serial_number": 17}, "#/serial_number"),
        ({"name": ""}, "#/name"),
        ({"name": "a\x00b"}, "#/name"),
        ({"image_urls": ["lamp.jpg"]}, "#/image_urls/0"),
        ({"image_urls": [A, "https://a.example/ x"]}, "#/image_urls/1"),
        ({"image_urls": [A, "https://me:secret@a.example/"]}, "#/image_urls/1"),
        ({"image_urls": [f"{A}?{number}" for number in range(201)]}, "#/image_urls"),
        ({"price": 3}, "#/price"),
    ],
)
def test_what_is_not_valid_is_refused(api: httpx.Client, values: dict[str, Any], pointer: str) -> None:
    made = create(api, serial_number="0")
    body = {"serial_number": "1", "name": "Lamp", "image_urls": [A]} | values
    for answer in (api.post(PRODUCTS, json=body), api.put(f"{PRODUCTS}/{made['id']}", json=body)):
        assert answer.status_code == 422, answer.text
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
        assert "secret" not in answer.text
    assert api.get(PRODUCTS).json()["results"] == [made]


def test_a_serial_number_that_is_there_is_a_conflict(api: httpx.Client) -> None:
    create(api)
    other = create(api, serial_number="2")
    body = {"serial_number": "1", "name": "Another"}
    for answer in (api.post(PRODUCTS, json=body), api.put(f"{PRODUCTS}/{other['id']}", json=body)):
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "serial number 1" in answer.json()["detail"]
    assert api.get(f"{PRODUCTS}/{other['id']}").json() == other


def test_each_key_sees_its_own_products(api: httpx.Client, server: Server) -> None:
    ann, bob = key(server, "ann"), key(server, "bob")
    body = {"serial_number": "1", "name": "Lamp"}
    made = api.post(PRODUCTS, json=body, headers=ann).json()
    where = f"{PRODUCTS}/{made['id']}"
    for answer in (
        api.get(where, headers=bob),
        api.put(where, json=body | {"name": "Mine"}, headers=bob),
        api.delete(where, headers=bob),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get(PRODUCTS, headers=bob).json()["results"] == []
    assert made["id"] not in api.get(f"{PRODUCTS}/export", headers=bob).text
    assert api.post(PRODUCTS, json=body, headers=bob).status_code == 201
    assert api.get(where, headers=ann).json() == made
    for method, path in (("GET", ""), ("GET", "/export"), ("POST", "/import")):
        assert api.request(method, f"{PRODUCTS}{path}").status_code == 401


def test_lists_have_pages_and_filters(api: httpx.Client) -> None:
    made = [create(api, serial_number=f"{number}", name=f"Lamp {number}") for number in range(5)]
    page = api.get(PRODUCTS, params={"limit": 2}).json()
    assert page["results"] == [made[4], made[3]]
    second = api.get(page["next"]).json()
    assert second["results"] == [made[2], made[1]]
    assert api.get(second["previous"]).json()["results"] == page["results"]
    assert api.get(PRODUCTS, params={"serial_number": "3"}).json()["results"] == [made[3]]
    assert api.get(PRODUCTS, params={"name": "lAMP 2"}).json()["results"] == [made[2]]
    assert api.get(PRODUCTS, params={"name": "%"}).json()["results"] == []
    assert api.get(PRODUCTS, params={"name": "\x00"}).status_code == 422
    assert api.get(PRODUCTS, params={"cursor": "x"}).status_code == 422


class Away:
    """A storage that can't be reached for what changes something."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def delete(self, _keys: Any) -> None:
        raise StorageUnavailable


def test_what_can_not_be_erased_now_is_gone_for_clients_and_erased_later(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a product whose storage is away
    made = create(api)
    give_output(server, made, A, "a")
    storage = server.resources.storage
    assert isinstance(storage, LocalStorage)
    server.resources.storage = Away(storage)
    # When it is deleted, then it is gone at once, and its serial number is free
    assert api.delete(f"{PRODUCTS}/{made['id']}").status_code == 204
    assert api.get(f"{PRODUCTS}/{made['id']}").status_code == 404
    create(api)
    assert len(keys(server)) == 1
    # When the sweep can't either, then its turn comes again
    monkeypatch.setattr("backend.resources.current", lambda: server.resources)
    sweep()
    assert len(keys(server)) == 1
    server.resources.storage = storage
    with server.resources.db.read_scope() as session:
        assert store.to_erase(session, now()) == []
        assert store.to_erase(session, now() + erasing.AGAIN_AFTER) == [UUID(made["id"])]
    with server.resources.db.session_scope() as session:
        store.postpone_erasing(session, UUID(made["id"]), now())
    sweep()
    # Then its objects and rows are gone, and nobody else's
    assert keys(server) == set()
    with server.resources.db.read_scope() as session:
        assert store.existing(session, [UUID(made["id"])]) == set()
    assert len(api.get(PRODUCTS).json()["results"]) == 1
