"""What images start from: asked for, refused, fetched, stored, signed for nodes, and deleted."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import UUID

import httpx
import pytest
from PIL import Image

from backend import keys, resources, retention, submit, sweep
from backend.errors import ObjectNotFound, ReferenceUnavailable, StorageUnavailable
from backend.jobs import ids, queries, store
from backend.jobs.models import ImageGeneration, Job, Status
from backend.jobs.store import Plan
from backend.tasks import gpu
from backend.tasks.references import fetch_references
from backend.views import now
from contract.messages import ModelCard
from contract.queues import gpu_queue
from tests.backend.api.conftest import Server, StartServer, announce
from tests.backend.images.samples import corners, encode, png, quarters
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen

PICTURE = encode(quarters(400, 200))
MASK = encode(Image.new("L", (400, 200), 255))
GOOD: dict[str, Any] = {"message": "autumn sale", "count": 1, "width": 128, "height": 128}
ABLE = ModelCard(
    name="able", engine="x", tasks=("text-to-image", "image-to-image", "inpainting"), default_width=64
)
HALF = ModelCard(name="half", engine="x", tasks=("text-to-image", "image-to-image"))


def data_uri(data: bytes, kind: str = "image/png") -> dict[str, str]:
    return {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


@pytest.fixture
def server(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Server:
    """As on a developer's machine; tasks that the test runs use its resources."""
    server = start_server(default_model="able", reference_allow_private=True, reference_allow_http=True)
    announce(server, ABLE, HALF, ModelCard(name="sketch", engine="sketch"))
    monkeypatch.setattr(resources, "current", lambda: server.resources)
    return server


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture
def host() -> Iterator[ScriptedServer]:
    """Somebody's pictures."""
    with ScriptedServer() as it:
        it.script([Answer(body=PICTURE)])
        yield it


def submitted(api: httpx.Client, **change: Any) -> UUID:
    answer = api.post("/v1/thumbnails", json=GOOD | change)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["task_id"])


def fetch(job_id: UUID, run: int = 1) -> None:
    """What the worker does first."""
    fetch_references.apply(kwargs={"job_id": str(job_id), "run": run})


def row(server: Server, job_id: UUID) -> Job:
    with server.resources.db.read_scope() as session:
        job = queries.get(session, job_id)
        assert job is not None
        return job


def stored(server: Server, job_id: UUID, role: ids.Role = "reference") -> bytes:
    return server.resources.storage.get(ids.reference_key(job_id, role), max_bytes=10**8)


def fails(server: Server, job_id: UUID) -> tuple[str | None, bool | None]:
    fetch(job_id)
    job = row(server, job_id)
    assert job.status is Status.FAILED
    return job.error_code, job.error_retryable


def own_image(server: Server, owner: str = "local", status: Status = Status.COMPLETED) -> UUID:
    """An image that was made earlier."""
    job_id, moment = ids.new_job_id(), now()
    key = ids.original_key(job_id, 0, "webp")
    with server.resources.db.session_scope() as session:
        job = Job(
            id=job_id, owner=owner, pipeline="thumbnails", status=Status.PENDING, input={},
            client_metadata={}, total=1, run=1, last_event=0, created_at=moment, updated_at=moment,
            deadline_at=moment + timedelta(hours=1),
        )  # fmt: skip
        store.accept(session, job, moment)
        store.plan(session, job, [Plan("a", "able", 1)], moment)
        image = session.get_one(ImageGeneration, ids.image_id(job_id, 0))
        image.status, image.key = status, key
    server.resources.storage.put(key, encode(quarters(400, 200), "WEBP"), "image/webp")
    return ids.image_id(job_id, 0)


# -- submit -----------------------------------------------------------------------------------------------


def test_a_data_uri_is_stored_and_only_described(api: httpx.Client, server: Server) -> None:
    body = GOOD | {"reference": data_uri(PICTURE), "mask": data_uri(MASK), "strength": 0.6}
    headers = {"idempotency-key": "k"}

    answer = api.post("/v1/thumbnails", json=body, headers=headers)

    assert answer.status_code == 202, answer.text
    told = answer.json()["input"]
    digest = hashlib.sha256(PICTURE).hexdigest()
    assert told["reference"] == {"url": "data:image/png", "bytes": len(PICTURE), "sha256": digest}
    assert (told["mask"]["bytes"], told["strength"]) == (len(MASK), 0.6)
    assert len(answer.content) < 4000
    job_id = UUID(answer.json()["task_id"])
    assert server.resources.storage.get(ids.given_key(job_id, "reference"), max_bytes=10**6) == PICTURE
    again = api.post("/v1/thumbnails", json=body, headers=headers)
    assert (again.json(), again.headers["idempotency-replayed"]) == (answer.json(), "true")
    other = api.post("/v1/thumbnails", json=body | {"mask": data_uri(PICTURE)}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mask": data_uri(MASK)}, "#/mask"),
    ({"strength": 0.5}, "#/strength"),
    ({"reference": data_uri(PICTURE), "strength": 0}, "#/strength"),
    ({"reference": data_uri(PICTURE), "strength": 1.01}, "#/strength"),
    ({"reference": data_uri(PICTURE), "model": "sketch"}, "#/reference"),
    ({"reference": data_uri(PICTURE), "mask": data_uri(MASK), "model": "half"}, "#/mask"),
    ({"reference": {}}, "#/reference"),
    ({"reference": {"url": "https://8.8.8.8/a.png", "image_id": str(ids.new_job_id())}}, "#/reference"),
    ({"reference": "https://8.8.8.8/a.png"}, "#/reference"),
    ({"reference": {"url": "ftp://8.8.8.8/a.png"}}, "#/reference/url"),
    ({"reference": {"url": "https://169.254.169.254/latest"}}, "#/reference/url"),
    ({"reference": {"url": "http://[fe80::1]/a.png"}}, "#/reference/url"),
    ({"reference": {"url": "https://8.8.8.8:22/a.png"}}, "#/reference/url"),
    ({"reference": {"url": "data:image/png,abc"}}, "#/reference/url"),
    ({"reference": {"url": "data:image/png;base64,?"}}, "#/reference/url"),
    ({"reference": {"url": "data:image/png;base64,\u00e4"}}, "#/reference/url"),
    ({"reference": {"url": "data:image/png;base64,"}}, "#/reference/url"),
    ({"reference": {"url": "data:text/html;base64,PGI+"}}, "#/reference/url"),
    ({"reference": data_uri(b"<svg/>", "image/svg+xml")}, "#/reference/url"),
    ({"reference": data_uri(encode(quarters(), "GIF"), "image/gif")}, "#/reference/url"),
    ({"reference": data_uri(png(9000, 9000))}, "#/reference/url"),
    ({"reference": data_uri(PICTURE), "mask": data_uri(png(1, 40_000))}, "#/mask/url"),
    ({"reference": {"image_id": "no-uuid"}}, "#/reference/image_id"),
    ({"reference": {"image_id": str(ids.new_job_id())}}, "#/reference/image_id"),
]


def test_what_is_wrong_is_pointed_at(api: httpx.Client) -> None:
    for change, pointer in WRONG:
        answer = api.post("/v1/thumbnails", json=GOOD | change)

        assert answer.status_code == 422, (change, answer.text)
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer], answer.text
        assert len(answer.content) < 4000


def test_private_addresses_and_plain_http_are_refused_by_default(start_server: StartServer) -> None:
    server = start_server(default_model="able")
    announce(server, ABLE)
    for url in ("https://127.0.0.1/a.png", "https://localhost/a.png", "http://8.8.8.8/a.png"):
        answer = httpx.post(f"{server.url}/v1/thumbnails", json=GOOD | {"reference": {"url": url}})
        assert answer.json()["errors"][0]["pointer"] == "#/reference/url", url


def test_images_of_others_and_unfinished_ones_are_as_if_they_were_not_there(server: Server) -> None:
    # Given two owners, and images of each
    with server.resources.db.session_scope() as session:
        ann = keys.create(session, "ann")
        bob = keys.create(session, "bob")
    mine = own_image(server, str(ann[0].id))
    unfinished = own_image(server, str(ann[0].id), Status.FAILED)
    foreign = own_image(server, str(bob[0].id))
    # When each is asked for
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ann[1]}"}) as api:
        asked = {
            image: api.post("/v1/thumbnails", json=GOOD | {"reference": {"image_id": str(image)}})
            for image in (mine, unfinished, foreign, ids.new_job_id())
        }
    # Then only one's own is taken, and all others are answered alike
    assert asked.pop(mine).status_code == 202
    assert {answer.status_code for answer in asked.values()} == {422}
    assert len({answer.json()["errors"][0]["detail"] for answer in asked.values()}) == 1


def test_a_submission_that_breaks_off_leaves_nothing(
    api: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a storage that takes the reference, and not the mask
    taken: list[str] = []
    put = server.resources.storage.put

    def fail_at_the_second(key: str, data: bytes, content_type: str) -> None:
        if taken:
            raise StorageUnavailable
        taken.append(key)
        put(key, data, content_type)

    monkeypatch.setattr(server.resources.storage, "put", fail_at_the_second)
    # When both come in a request, then it is refused, and nobody sees a job
    answer = api.post("/v1/thumbnails", json=GOOD | {"reference": data_uri(PICTURE), "mask": data_uri(MASK)})
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert api.get("/v1/jobs").json()["results"] == []
    # And the sweep leaves it alone as long as somebody may be at it, and then erases it
    sweep._erase_deleted(server.resources)
    assert server.resources.storage.stat(taken[0]).bytes == len(PICTURE)
    monkeypatch.setattr(retention, "now", lambda: now() + submit.ACCEPTED_WITHIN)
    sweep._erase_deleted(server.resources)
    with pytest.raises(ObjectNotFound):
        server.resources.storage.stat(taken[0])
    with server.resources.db.read_scope() as session:
        assert queries.to_erase(session, now() + timedelta(days=1)) == []


# -- fetched ----------------------------------------------------------------------------------------------


def test_a_url_is_fetched_and_stored_as_the_node_needs_it(
    api: httpx.Client, server: Server, host: ScriptedServer
) -> None:
    job_id = submitted(api, reference={"url": host.url + "/shop.jpg"}, width=64, height=96)

    fetch(job_id)

    image = Image.open(BytesIO(stored(server, job_id)), formats=["PNG"])
    assert (image.size, image.mode) == ((64, 96), "RGB")
    assert row(server, job_id).status is Status.IN_PROGRESS


def test_what_was_fetched_once_stands(api: httpx.Client, server: Server, host: ScriptedServer) -> None:
    job_id = submitted(api, reference={"url": host.url + "/a"}, mask=data_uri(MASK))
    fetch(job_id)
    first = stored(server, job_id), stored(server, job_id, "mask")
    host.script([Answer(body=MASK)])

    fetch(job_id)

    assert (stored(server, job_id), stored(server, job_id, "mask")) == first
    assert len(host.seen) == 1


def test_an_own_image_is_one(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference={"image_id": str(own_image(server))}, width=128, height=64)

    fetch(job_id)

    assert corners(Image.open(BytesIO(stored(server, job_id)))) == ["red", "green", "blue", "yellow"]


def test_a_mask_is_grey(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference=data_uri(PICTURE), mask=data_uri(MASK))

    fetch(job_id)

    mask = Image.open(BytesIO(stored(server, job_id, "mask")))
    assert (mask.mode, mask.size, mask.getextrema()) == ("L", (128, 128), (255, 255))


def test_a_host_that_is_away_for_a_while(api: httpx.Client, server: Server, host: ScriptedServer) -> None:
    host.script([Answer(503), Answer(reset=True), Answer(body=PICTURE)])
    job_id = submitted(api, reference={"url": host.url + "/a"})

    fetch(job_id)

    assert stored(server, job_id)
    assert len(host.seen) == 3


BAD: list[tuple[Answer, str, bool, int]] = [
    (Answer(503), "reference_unavailable", True, 4),
    (Answer(404), "reference_unavailable", True, 1),
    (Answer(302, headers={"Location": "http://169.254.169.254/"}), "reference_refused", False, 1),
    (Answer(body=b"<html>"), "reference_refused", False, 1),
    (Answer(body=PICTURE[:-50]), "reference_refused", False, 1),
    (Answer(body=png(9000, 9000)), "reference_refused", False, 1),
    (Answer(body=bytes(21 * 1024 * 1024)), "reference_refused", False, 1),
]


def test_a_bad_reference_fails_the_job(api: httpx.Client, server: Server, host: ScriptedServer) -> None:
    for answer, code, retryable, tries in BAD:
        host.script([answer])
        host.seen.clear()
        job_id = submitted(api, reference={"url": host.url + "/a?token=secret"})

        assert fails(server, job_id) == (code, retryable), answer
        assert len(host.seen) == tries, answer
        message = row(server, job_id).error_message or ""
        assert message.startswith("The reference image can't be used: ")
        assert "secret" not in message


def test_a_mask_of_another_shape_is_refused(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference=data_uri(PICTURE), mask=data_uri(encode(Image.new("L", (200, 200)))))

    assert fails(server, job_id) == ("reference_refused", False)


def test_an_own_image_that_was_deleted_meanwhile(api: httpx.Client, server: Server) -> None:
    image_id = own_image(server)
    job_id = submitted(api, reference={"image_id": str(image_id)})
    with server.resources.db.read_scope() as session:
        source = session.get_one(ImageGeneration, image_id).job_id
    server.resources.storage.delete([ids.original_key(source, 0, "webp")])

    assert fails(server, job_id) == ("reference_unavailable", True)


def test_a_retry_fetches_what_could_not_be_fetched(
    api: httpx.Client, server: Server, host: ScriptedServer
) -> None:
    host.script([Answer(404), Answer(body=PICTURE)])
    job_id = submitted(api, reference={"url": host.url + "/a"})
    assert fails(server, job_id)[0] == "reference_unavailable"

    assert api.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    fetch(job_id, run=2)

    assert stored(server, job_id)


def test_a_job_that_has_ended_fetches_nothing(api: httpx.Client, host: ScriptedServer) -> None:
    job_id = submitted(api, reference={"url": host.url + "/a"})
    api.post(f"/v1/jobs/{job_id}/cancel")

    fetch(job_id)

    assert host.seen == []


# -- and then ---------------------------------------------------------------------------------------------


def fan_out(server: Server, job_id: UUID) -> dict[str, Any]:
    """The message of the job's one image, as it lies in the broker."""
    with server.resources.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        store.plan(session, job, [Plan("a", "able", 1)], now())
    assert gpu.release(server.resources, job_id) == 1
    with server.resources.celery.connection_for_read() as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get(gpu_queue("able"), no_ack=True)
    arguments: list[dict[str, Any]] = message.decode()[0]
    return arguments[0]


def test_nodes_are_told_where_it_is_and_what_they_must_get(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference=data_uri(PICTURE), mask=data_uri(MASK), strength=0.3)
    fetch(job_id)

    message = fan_out(server, job_id)

    assert (message["task"], message["strength"]) == ("inpainting", 0.3)
    for role in ids.ROLES:
        content = httpx.get(message[role]["url"]).content
        assert message[role]["sha256"] == hashlib.sha256(content).hexdigest()
        assert message[role]["max_bytes"] == len(content)
        assert content == stored(server, job_id, role)


def test_without_a_reference_nothing_is_signed(api: httpx.Client, server: Server) -> None:
    message = fan_out(server, submitted(api))

    assert (message["task"], message["reference"], message["mask"]) == ("text-to-image", None, None)


def test_one_that_is_gone_before_the_nodes_are_asked(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference=data_uri(PICTURE))

    with pytest.raises(ReferenceUnavailable):
        fan_out(server, job_id)


def test_they_are_deleted_with_the_job(api: httpx.Client, server: Server) -> None:
    job_id = submitted(api, reference=data_uri(PICTURE), mask=data_uri(MASK))
    fetch(job_id)

    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204

    for key in ids.reference_keys(job_id, ids.ROLES):
        with pytest.raises(ObjectNotFound):
            server.resources.storage.stat(key)


def test_a_job_that_is_deleted_amid_leaves_nothing(
    api: httpx.Client, server: Server, host: ScriptedServer
) -> None:
    job_id = submitted(api, reference={"url": host.url + "/a"})

    def delete(_: Seen) -> Answer:
        api.delete(f"/v1/jobs/{job_id}").raise_for_status()
        return Answer(body=PICTURE)

    host.script([delete])
    fetch(job_id)

    assert len(host.seen) == 1
    with pytest.raises(ObjectNotFound):
        stored(server, job_id)
