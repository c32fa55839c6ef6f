"""What is pruned, and above all what is not: on both databases, with real files."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from backend.db import Database
from backend.errors import StorageUnavailable
from backend.jobs import ids, queries, store
from backend.jobs.faults import Fault
from backend.jobs.models import Job, Status
from backend.products import store as products
from backend.products.fields import ProductFields
from backend.products.store import Output
from backend.prune import AT_ONCE, Find, StrangeStorage, prune
from backend.prune_report import find_line, finds_line
from backend.storage.draft import ABANDONED_AFTER_S
from backend.storage.local import DRAFTS, LocalStorage
from backend.storage.signing import Signer
from tests.backend.conftest import MakeJob

DAY = timedelta(days=1)
NOTHING = timedelta(0)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storage(root: Path) -> LocalStorage:
    return LocalStorage(root, public_url="http://p", node_url="http://n", signer=Signer(b"secret"))


Fill = Callable[..., UUID]


@pytest.fixture
def fill(storage: LocalStorage, root: Path) -> Fill:
    """Stores some objects of a job; a day and an hour ago, if nothing else is said."""

    def fill(job_id: UUID | None = None, ago: timedelta = DAY + DAY / 24) -> UUID:
        job_id = job_id or ids.new_job_id()
        written = time.time() - ago.total_seconds()
        for key in (ids.original_key(job_id, 0, "webp"), ids.thumbnail_key(job_id, 0, 32, "webp")):
            storage.put(key, b"12345", "image/webp")
            if ago:
                os.utime(root / key, (written, written))
        return job_id

    return fill


def finds(database: Database, storage: LocalStorage, *, force: bool = False, **given: object) -> list[Find]:
    """What a dry run says; then does it, and sees that it is the same."""
    kept_for = given.pop("kept_for", None)
    would = list(prune(database, storage, kept_for=kept_for, dry_run=True, **given))  # type: ignore[arg-type]
    before = {one.key for one in storage.walk("")}
    did = list(prune(database, storage, kept_for=kept_for, force=force, **given))  # type: ignore[arg-type]
    gone = before - {one.key for one in storage.walk("")}
    assert sorted(did, key=repr) == sorted(would, key=repr)
    assert {key for one in did for key in one.keys} <= gone
    return did


def there(storage: LocalStorage) -> set[UUID | None]:
    return {ids.job_of(one.key) for one in storage.walk("jobs/")}


def test_what_no_job_knows_of_goes_and_all_else_stays(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    # Given objects of a job, of none, of one that is reserved, of one that is to be erased by the sweep, ...
    orphan, alive, reserved = fill(), fill(make_job()), fill(make_job())
    young = fill(ago=timedelta(hours=23))
    with database.session_scope() as session:
        store.reserve(session, session.get_one(Job, reserved), now() + timedelta(minutes=15))
    # ... and what isn't ours
    others = ["notes.txt", "jobs/notes.txt", "jobs/not-an-id/a.webp", f"jobs/{orphan.hex}/a.webp",
              f"jobs/{str(orphan).upper()}/a.webp", f"other/{orphan}/a.webp"]  # fmt: skip
    for key in others:
        storage.put(key, b"x", "text/plain" if key.endswith("txt") else "image/webp")
        os.utime(Path(storage._root) / key, (0, 0))
    # When it is pruned
    found = finds(database, storage)
    # Then only what belongs to no job and is old is gone
    assert [(one.kind, one.name, one.objects, one.bytes) for one in found] == [
        ("orphaned", str(orphan), 2, 10)
    ]
    assert there(storage) - {None} == {alive, reserved, young}
    assert set(others) <= {one.key for one in storage.walk("")}


def test_one_young_object_saves_its_siblings(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    fill(make_job())
    orphan = fill()
    storage.put(ids.original_key(orphan, 1, "webp"), b"late", "image/webp")

    assert finds(database, storage) == []
    assert [one.objects for one in finds(database, storage, older_than=NOTHING)] == [3]


def test_the_wrong_database_deletes_nothing(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    make_job()
    strangers = {fill() for _ in range(3)}

    with pytest.raises(StrangeStorage):
        list(prune(database, storage, kept_for=None))
    assert there(storage) == strangers

    assert len(finds(database, storage, force=True)) == 3
    assert there(storage) == set()


def test_more_than_one_question_to_the_database(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    alive = fill(make_job())
    for _ in range(AT_ONCE + 1):
        fill()

    assert len(finds(database, storage)) == AT_ONCE + 1
    assert there(storage) == {alive}


def test_an_empty_storage(database: Database, storage: LocalStorage) -> None:
    assert finds(database, storage) == []


def test_leftovers_of_drafts_and_checks_go(database: Database, storage: LocalStorage, root: Path) -> None:
    storage.put("check-0011223344556677.txt", b"fanfare", "text/plain")
    storage.put("check-8899aabbccddeeff.txt", b"fanfare", "text/plain")
    (root / DRAFTS / "old").write_bytes(b"half")
    for name in ("check-0011223344556677.txt", f"{DRAFTS}/old"):
        long_ago = time.time() - ABANDONED_AFTER_S - 60
        os.utime(root / name, (long_ago, long_ago))

    assert finds(database, storage) == [
        Find("unfinished", "checks", 1, 7), Find("unfinished", "drafts", 1, 4),
    ]  # fmt: skip
    assert [one.key for one in storage.walk("")] == ["check-8899aabbccddeeff.txt"]


def test_expired_and_deleted_jobs_go_too(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    # Given a job that has expired, one that its owner deleted while the storage was away, and one that lives
    expired, deleted, alive = (fill(make_job(planned=1)) for _ in range(3))
    with database.session_scope() as session:
        store.fail(session, expired, Fault("internal", "", retryable=True), now() - 2 * DAY, DAY)
        session.get_one(Job, deleted).deleted_at = now()
    # When it is pruned
    found = finds(database, storage, kept_for=DAY)
    # Then both are gone, and the third is whole
    assert {(one.kind, one.name) for one in found} == {("expired", str(expired)), ("deleted", str(deleted))}
    assert there(storage) == {alive}
    with database.read_scope() as session:
        assert queries.existing(session, [expired, deleted, alive]) == {alive}


def test_a_dry_run_shows_what_a_new_setting_would_do(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    # Given a job that ended long ago, while nothing expired
    job_id = fill(make_job(planned=1))
    with database.session_scope() as session:
        store.fail(session, job_id, Fault("internal", "", retryable=True), now() - 30 * DAY)

    def names(kept_for: timedelta) -> list[str]:
        return [one.name for one in prune(database, storage, kept_for=kept_for, dry_run=True)]

    assert names(7 * DAY) == [str(job_id)]
    assert names(31 * DAY) == []
    # But it gets its notice before it goes
    assert list(prune(database, storage, kept_for=7 * DAY)) == []
    assert there(storage) == {job_id}


def test_a_storage_that_is_away_is_told(database: Database, tmp_path: Path) -> None:
    away = LocalStorage(
        tmp_path / ("x" * 300), public_url="http://p", node_url="http://n", signer=Signer(b"s")
    )

    with pytest.raises(StorageUnavailable):
        list(prune(database, away, kept_for=None))


def test_no_object_of_a_live_job_goes_whatever_happens_meanwhile(
    database: Database, storage: LocalStorage, make_job: MakeJob, fill: Fill
) -> None:
    # Given two that prune all the time, without any age that would protect a file
    fill(make_job())
    done, errors = threading.Event(), []

    def prune_on() -> None:
        try:
            while not done.is_set():
                list(prune(database, storage, kept_for=None, older_than=NOTHING))
        except BaseException as exc:  # noqa: BLE001 - reported below
            errors.append(exc)

    pruners = [threading.Thread(target=prune_on) for _ in range(2)]
    for pruner in pruners:
        pruner.start()
    # When jobs are reserved, get their files, are accepted, fail and are retried, or are deleted
    alive, gone = set(), set()
    for number in range(30):
        job_id = make_job(planned=1)
        with database.session_scope() as session:
            job = session.get_one(Job, job_id)
            store.reserve(session, job, now() + timedelta(minutes=15))
        fill(job_id, NOTHING)
        with database.session_scope() as session:
            store.accept(session, job, now())
        with database.session_scope() as session:
            store.fail(session, job_id, Fault("internal", "", retryable=True), now())
        if number % 2:
            with database.session_scope() as session:
                locked = store.lock(session, job_id)
                assert locked is not None
                store.retry(session, locked, now(), DAY)
            alive.add(job_id)
        else:
            with database.session_scope() as session:
                session.get_one(Job, job_id).deleted_at = now()
            gone.add(job_id)
        fill(job_id, NOTHING)  # a node that is late
    done.set()
    for pruner in pruners:
        pruner.join()
    # Then each living job has all its files, and one more round leaves none of the others
    assert errors == []
    list(prune(database, storage, kept_for=None, older_than=NOTHING))
    keys = {one.key for one in storage.walk("jobs/")}
    for job_id in alive:
        assert {ids.original_key(job_id, 0, "webp"), ids.thumbnail_key(job_id, 0, 32, "webp")} <= keys
    assert there(storage).isdisjoint(gone)
    with database.read_scope() as session:
        assert all(session.get_one(Job, one).status is Status.PENDING for one in alive)


# -- products -----------------------------------------------------------------------------------------


@pytest.fixture
def make_product(database: Database) -> Callable[..., UUID]:
    """A product with one image, made or not."""

    def make(*, made: str | None = None) -> UUID:
        number, url = str(ids.new_id()), "https://a.example/1.jpg"
        with database.session_scope() as session:
            product_id = products.add(session, "ann", ProductFields(number, "Lamp", (url,)), now()).id
        if made:
            key = f"products/{product_id}/{made}.webp"
            output = Output(key, "image/webp", 5, "5a", 4, 3, 0.5, ({"key": key.replace(made, "small")},))
            with database.session_scope() as session:
                products.record_output(session, product_id, url, output, job_id=None, now=now())
        return product_id

    return make


def store_for(
    storage: LocalStorage, root: Path, product_id: UUID, *names: str, ago: timedelta = 2 * DAY
) -> None:
    for name in names:
        key = f"products/{product_id}/{name}.webp"
        storage.put(key, b"12345", "image/webp")
        written = time.time() - ago.total_seconds()
        os.utime(root / key, (written, written))


def test_what_no_product_refers_to_goes_and_all_else_stays(
    database: Database, storage: LocalStorage, root: Path, make_product: Callable[..., UUID]
) -> None:
    # Given a product whose output was replaced, one that is gone with its row, and no jobs at all
    alive, gone = make_product(made="new"), ids.new_id()
    store_for(storage, root, alive, "new", "small", "old")
    store_for(storage, root, alive, "coming", ago=NOTHING)
    store_for(storage, root, gone, "a", "b")
    storage.put("products/notes.txt", b"x", "text/plain")
    # When it is pruned, then what is named or young stays
    found = finds(database, storage)
    assert sorted((one.kind, one.owner, one.name, one.objects, one.bytes) for one in found) == sorted(
        [("orphaned", "product", str(alive), 1, 5), ("orphaned", "product", str(gone), 2, 10)]
    )
    assert {one.key for one in storage.walk("products/")} == {"products/notes.txt"} | {
        f"products/{alive}/{name}.webp" for name in ("new", "small", "coming")
    }
    # And the report says whose they were
    assert find_line(found[0], dry_run=False).startswith("gone: product ")
    assert finds_line(found, dry_run=True) == "Would delete 3 objects of 0 jobs and 2 products, 15 bytes."


def test_products_that_are_deleted_go_with_their_objects(
    database: Database, storage: LocalStorage, root: Path, make_product: Callable[..., UUID]
) -> None:
    deleted, kept = make_product(made="a"), make_product(made="a")
    for product_id in (deleted, kept):
        store_for(storage, root, product_id, "a", "small", ago=NOTHING)
    with database.session_scope() as session:
        product = products.lock(session, deleted)
        assert product is not None
        products.delete(product, now())

    found = finds(database, storage)

    assert [(one.kind, one.owner, one.name, one.objects) for one in found] == [
        ("deleted", "product", str(deleted), 2)
    ]
    with database.read_scope() as session:
        assert products.existing(session, [deleted, kept]) == {kept}
    assert len(list(storage.walk("products/"))) == 2


def test_the_wrong_database_deletes_nothing_of_products_either(
    database: Database, storage: LocalStorage, root: Path, make_product: Callable[..., UUID]
) -> None:
    make_product(made="a")
    store_for(storage, root, ids.new_id(), "a")
    with pytest.raises(StrangeStorage):
        list(prune(database, storage, kept_for=None))
    assert len(list(storage.walk("products/"))) == 1
