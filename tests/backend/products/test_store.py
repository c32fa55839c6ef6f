"""Products and what was made for them, on both databases."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from backend.db import Database
from backend.errors import Conflict
from backend.jobs.faults import Fault
from backend.jobs.ids import new_id
from backend.products import ids, store
from backend.products.fields import ProductFields
from backend.products.models import Product, ProductImage
from backend.products.store import Output, Wanted

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
A, B, C = (f"https://a.example/{name}.jpg" for name in "abc")
FAULT = Fault("reference_unavailable", "a.example answered 404.", retryable=True)


def output(product_id: UUID, name: str) -> Output:
    folder = ids.folder(product_id)
    thumbnail = {"key": f"{folder}{name}-200.webp", "width": 200, "height": 150,
                 "content_type": "image/webp", "bytes": 7}  # fmt: skip
    return Output(f"{folder}{name}.webp", "image/webp", 99, "5a" * 32, 400, 300, 0.5, (thumbnail,))


def make(database: Database, *urls: str, serial_number: str = "1", owner: str = "ann") -> UUID:
    with database.session_scope() as session:
        return store.add(session, owner, ProductFields(serial_number, "Lamp", urls), NOW).id


def rename(database: Database, product_id: UUID, serial_number: str) -> None:
    with database.session_scope() as session:
        product = store.lock(session, product_id)
        assert product is not None
        store.replace(session, product, ProductFields(serial_number, "Lamp", ()), NOW)


def images(database: Database, product_id: UUID) -> list[ProductImage]:
    with database.read_scope() as session:
        product = store.get(session, product_id)
        assert product is not None
        return product.images


def test_an_output_is_noted_and_another_takes_its_place(database: Database) -> None:
    product_id, job_id = make(database, A, B), uuid4()
    first, second = output(product_id, "first"), output(product_id, "second")
    # When it is noted twice, as a task does that runs twice
    for _ in range(2):
        with database.session_scope() as session:
            assert store.record_output(session, product_id, A, first, job_id=job_id, now=LATER) == []
    # Then it stands at its URL alone
    made, untouched = images(database, product_id)
    assert (made.key, made.width, made.scale, made.job_id) == (first.key, 400, 0.5, job_id)
    assert made.thumbnails == list(first.thumbnails)
    assert (untouched.key, untouched.job_id) == (None, None)
    # And when there is another one, then what nobody refers to any more is told
    with database.session_scope() as session:
        gone = store.record_output(session, product_id, A, second, job_id=job_id, now=LATER)
    assert gone == [first.key, first.thumbnails[0]["key"]]
    with database.read_scope() as session:
        assert store.named_keys(session, [product_id]) == {second.key, second.thumbnails[0]["key"]}


def test_a_failure_is_noted_keeps_what_was_made_and_goes_with_the_next_success(database: Database) -> None:
    product_id = make(database, A)
    with database.session_scope() as session:
        store.record_output(session, product_id, A, output(product_id, "a"), job_id=None, now=NOW)
    with database.session_scope() as session:
        assert store.record_failure(session, product_id, A, FAULT, job_id=uuid4(), now=LATER)
    (image,) = images(database, product_id)
    assert (image.error_code, image.error_message, image.error_retryable) == (
        FAULT.code, FAULT.message, True,
    )  # fmt: skip
    assert image.key is not None
    with database.session_scope() as session:
        store.record_output(session, product_id, A, output(product_id, "a"), job_id=None, now=LATER)
    (image,) = images(database, product_id)
    assert (image.error_code, image.error_message, image.error_retryable) == (None, None, None)


def test_urls_can_be_named_beside_those_that_are(database: Database) -> None:
    product_id = make(database, B, A)
    with database.session_scope() as session:
        product = store.lock(session, product_id)
        assert product is not None
        store.add_urls(product, [A, C, C], NOW)
    assert [image.input_url for image in images(database, product_id)] == [B, A, C]
    assert images(database, product_id)[2].id == ids.image_id(product_id, C)
    with database.session_scope() as session:
        product = store.lock(session, product_id)
        assert product is not None
        with pytest.raises(ValueError, match="more than 200"):
            store.add_urls(product, [f"{A}?{number}" for number in range(198)], NOW)


def test_a_url_that_is_not_named_takes_nothing(database: Database) -> None:
    product_id = make(database, A)
    with database.session_scope() as session:
        made = output(product_id, "c")
        assert store.record_output(session, product_id, C, made, job_id=None, now=NOW) is None
        assert not store.record_failure(session, product_id, C, FAULT, job_id=None, now=NOW)
    assert [image.input_url for image in images(database, product_id)] == [A]


def test_several_outputs_at_the_same_moment_are_all_noted(database: Database) -> None:
    urls = [f"https://a.example/{number}" for number in range(8)]
    product_id = make(database, *urls)
    start = threading.Barrier(len(urls))

    def record(url: str) -> None:
        start.wait()
        for _ in range(2):
            with database.session_scope() as session:
                store.record_output(session, product_id, url, output(product_id, "x"), job_id=None, now=NOW)

    threads = [threading.Thread(target=record, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = images(database, product_id)
    assert {image.input_url for image in made} == set(urls)
    assert [image.position for image in made] == list(range(8))


def test_a_product_that_is_gone_takes_nothing(database: Database) -> None:
    product_id = make(database, A)
    with database.session_scope() as session:
        product = store.lock(session, product_id, "ann")
        assert product is not None
        store.delete(product, NOW)
    for gone in (product_id, new_id()):
        with database.session_scope() as session:
            made = output(product_id, "a")
            assert store.record_output(session, gone, A, made, job_id=None, now=NOW) is None
            assert not store.record_failure(session, gone, A, FAULT, job_id=None, now=NOW)


def test_what_is_said_anew_keeps_pairs_whose_url_is_still_named(database: Database) -> None:
    product_id = make(database, A, B)
    with database.session_scope() as session:
        for name, url in (("a", A), ("b", B)):
            store.record_output(session, product_id, url, output(product_id, name), job_id=None, now=NOW)
    # When one URL is left out, one is new, and the order is another
    with database.session_scope() as session:
        product = store.lock(session, product_id)
        assert product is not None
        unneeded = store.replace(session, product, ProductFields("2", "Lamp 2", (C, B)), LATER)
    # Then the output of the one goes, and that of the other stays
    assert unneeded == [output(product_id, "a").key, output(product_id, "a").thumbnails[0]["key"]]
    assert [(one.input_url, one.key) for one in images(database, product_id)] == [
        (C, None), (B, output(product_id, "b").key),
    ]  # fmt: skip
    with database.read_scope() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ProductImage)) == 2


def test_a_serial_number_is_given_out_once_for_each_owner(database: Database) -> None:
    make(database, serial_number="1")
    other = make(database, serial_number="2")
    make(database, serial_number="1", owner="bob")
    with pytest.raises(Conflict, match="serial number 1"):
        make(database, serial_number="1")
    with pytest.raises(Conflict, match="serial number 1"):
        rename(database, other, "1")
    # That of a deleted product is free again, however often
    for _ in range(2):
        with database.session_scope() as session:
            product = store.lock_by_serial_number(session, "ann", "1")
            assert product is not None
            store.delete(product, NOW)
        make(database, serial_number="1")
    # And the database itself keeps it so
    with pytest.raises(IntegrityError), database.session_scope() as session:
        session.add(
            Product(id=new_id(), owner="ann", serial_number="1", name="x", created_at=NOW, updated_at=NOW)
        )


def test_one_of_many_who_want_the_same_serial_number_gets_it(database: Database) -> None:
    start = threading.Barrier(6)
    outcomes: list[UUID | None] = []

    def create() -> None:
        start.wait()
        try:
            outcomes.append(make(database))
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert sum(one is not None for one in outcomes) == 1


def test_listing_knows_owners_pages_and_parts_of_names(database: Database) -> None:
    made = [make(database, serial_number=f"s{number}") for number in range(5)]
    make(database, serial_number="s1", owner="bob")
    with database.session_scope() as session:
        session.execute(sa.update(Product).where(Product.id == made[3]).values(name="100%_Brass"))

    def ids_of(
        wanted: Wanted, limit: int = 9, before: UUID | None = None, after: UUID | None = None
    ) -> object:
        with database.read_scope() as session:
            return [one.id for one in store.page(session, "ann", wanted, limit, before=before, after=after)]

    assert ids_of(Wanted()) == made[::-1]
    assert ids_of(Wanted(), 2, before=made[3]) == [made[2], made[1]]
    assert ids_of(Wanted(), 2, after=made[1]) == [made[3], made[2]]
    assert ids_of(Wanted(serial_number="s1")) == [made[1]]
    assert ids_of(Wanted(name="brass")) == ids_of(Wanted(name="%_B")) == [made[3]]
    assert ids_of(Wanted(name="%")) == [made[3]]
    assert ids_of(Wanted(serial_number="s1", name="brass")) == []
