"""Files from outside: turns, losses, hosts that are busy, slow or away. Real database, broker and servers."""

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from backend import rescue, resources
from backend.errors import DatabaseUnavailable, StorageUnavailable
from backend.jobs import ids, items, queries, store
from backend.jobs.faults import Fault
from backend.jobs.items import ATTEMPTS, LOSSES, Outcome, Source
from backend.jobs.models import MediaItem, Status
from backend.tasks import items as tasks
from backend.tasks.items import Turn, process_items
from backend.views import now
from contract.queues import MEDIA_QUEUE
from contract.signals import Signals, connect
from tests.backend.conftest import MakeJob
from tests.backend.images.samples import encode, quarters
from tests.backend.workplace import Workplace
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen
from tests.gpu_worker.processes import eventually

PICTURE = encode(quarters(64, 48), "JPEG")
NEAR = {"reference_allow_private": True, "reference_allow_http": True}


@pytest.fixture
def place(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(database_url, redis_url, tmp_path, **NEAR, downloads_per_host=2)
    yield place
    place.close()


@pytest.fixture
def host() -> Iterator[ScriptedServer]:
    with ScriptedServer() as it:
        it.script([lambda _: Answer(body=PICTURE)])
        yield it


def job_of(place: Workplace, make_job: MakeJob, *urls: str) -> UUID:
    asked = {"scale": 1.0, "thumbnail_sizes": [32], "priority": "normal"}
    job_id = make_job(pipeline="uploads", input=asked, total=len(urls), takes_files=True)
    with place.parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        items.plan(session, job, [Source(url=url) for url in urls], now())
        store.dispatching(job, now())
    return job_id


def turn_of(place: Workplace, job_id: UUID, name: str = "") -> Turn:
    return Turn(place.parts, job_id, 1, name or uuid4().hex)


def work(turn: Turn, at_once: int = 4) -> None:
    done: Mapping[UUID, Outcome] = {}
    while begun := turn.step(done, at_once):
        done = {item.id: turn.process(item) for item in begun}


def rows(place: Workplace, job_id: UUID) -> list[MediaItem]:
    with place.parts.db.read_scope() as session:
        return items.page(session, job_id, 100)


def change(place: Workplace, job_id: UUID, **values: object) -> None:
    with place.parts.db.session_scope() as session:
        for item in items.page(session, job_id, 100):
            for name, value in values.items():
                setattr(item, name, value)


def expire_claim(place: Workplace, job_id: UUID) -> None:
    with place.parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        job.claimed_until = job.updated_at = job.dispatched_at = now() - timedelta(hours=1)


def stored(place: Workplace) -> list[str]:
    return sorted(one.key for one in place.parts.storage.walk(""))


# -- one at a time ------------------------------------------------------------------------------------


def test_two_messages_of_a_job_are_one_worker(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    job_id = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b")
    first, second = turn_of(place, job_id), turn_of(place, job_id)
    assert first.begin()
    assert not second.begin()
    work(first)
    assert first.is_over
    assert place.job(job_id).status is Status.COMPLETED
    assert len(host.seen) == 2


def test_the_turn_is_passed_on_by_name(place: Workplace, make_job: MakeJob, host: ScriptedServer) -> None:
    # Given a worker whose time was up after the first item
    job_id = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b")
    first = turn_of(place, job_id)
    assert first.begin()
    begun = first.step({}, 1)
    assert first.step({begun[0].id: first.process(begun[0])}, 0) == []
    # When it hands over, then only the message that it sends may go on
    next_turn, wait_s, _ = first.hand_over()
    assert wait_s == 0
    assert not turn_of(place, job_id).begin()
    follower = turn_of(place, job_id, next_turn)
    assert follower.begin()
    assert first.step({}, 4) == []  # and not the first any more
    assert first.is_over
    work(follower)
    assert place.job(job_id).status is Status.COMPLETED


def test_a_turn_that_was_taken_for_dead_spoils_nothing(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given a worker that was silent for so long that another took over, and made the same
    job_id = job_of(place, make_job, f"{host.url}/a")
    silent = turn_of(place, job_id)
    assert silent.begin()
    [item] = silent.step({}, 1)
    outcome = silent.process(item)
    expire_claim(place, job_id)
    other = turn_of(place, job_id)
    assert other.begin()
    work(other)
    kept = stored(place)
    # When it comes back
    assert silent.step({item.id: outcome}, 1) == []
    # Then what the other has made is there, and one end is told
    assert stored(place) == kept
    assert len(kept) == 2
    with place.parts.db.read_scope() as session:
        job = queries.get(session, job_id)
    assert job is not None
    assert job.status is Status.COMPLETED


# -- workers that die ---------------------------------------------------------------------------------


def test_what_a_dead_worker_had_in_hand_is_made_alone_first(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    job_id = job_of(place, make_job, *(f"{host.url}/{index}" for index in range(4)))
    dead = turn_of(place, job_id)
    assert dead.begin()
    assert [item.index for item in dead.step({}, 2)] == [0, 1]
    expire_claim(place, job_id)
    heir = turn_of(place, job_id)
    assert heir.begin()
    one_by_one: list[list[int]] = []
    done: Mapping[UUID, Outcome] = {}
    while begun := heir.step(done, 4):
        one_by_one.append([item.index for item in begun])
        done = {item.id: heir.process(item) for item in begun}
    assert one_by_one == [[0], [1], [2, 3]]
    assert [item.losses for item in rows(place, job_id)] == [1, 1, 0, 0]
    assert place.job(job_id).status is Status.COMPLETED


def test_a_file_that_kills_each_worker_fails_alone(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    job_id = job_of(place, make_job, f"{host.url}/bad", f"{host.url}/good")
    for _ in range(LOSSES):
        turn = turn_of(place, job_id)
        assert turn.begin()
        begun = turn.step({}, 4)
        expire_claim(place, job_id)
        if begun[0].index == 0 and len(begun) == 1:
            continue
    last = turn_of(place, job_id)
    assert last.begin()
    work(last)
    job, (bad, good) = place.job(job_id), rows(place, job_id)
    assert (bad.status, bad.error_code, good.status) == (Status.FAILED, "worker_lost", Status.COMPLETED)
    assert job.status is Status.PARTIALLY_COMPLETED


def test_the_sweep_sends_a_job_again_whose_worker_is_gone(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    job_id = job_of(place, make_job, f"{host.url}/a")
    turn = turn_of(place, job_id)
    assert turn.begin()
    place.age(job_id, 3600)
    with place.parts.db.session_scope() as session:  # as long as it says so, it has it in hand
        job = store.lock(session, job_id)
        assert job is not None
        job.claimed_until = now() + timedelta(seconds=20)
    rescue.rescue(place.parts)
    assert place.waiting(MEDIA_QUEUE) == []
    expire_claim(place, job_id)
    rescue.rescue(place.parts)
    assert place.waiting(MEDIA_QUEUE) == [{"job_id": str(job_id), "run": 1}]


def test_the_task_goes_to_the_end_of_the_queue(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TURN_S", 0.0)
    monkeypatch.setattr(resources, "current", lambda: place.parts)
    job_id = job_of(place, make_job, f"{host.url}/a")
    process_items.apply(kwargs={"job_id": str(job_id), "run": 1}, task_id=str(job_id))
    [message] = place.waiting(MEDIA_QUEUE)
    assert message["turn"]
    monkeypatch.setattr(tasks, "TURN_S", 20.0)
    done = process_items.apply(kwargs=message, task_id=str(job_id))
    assert done.get()["completed"] == 1


# -- servers of others --------------------------------------------------------------------------------


def test_no_host_is_asked_for_more_than_its_share(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given two jobs that ask the same host, and one that asks another
    jobs = [job_of(place, make_job, *(f"{host.url}/{index}" for index in range(3))) for _ in range(2)]
    elsewhere = host.url.replace("127.0.0.1", "localhost")
    third = job_of(place, make_job, f"{elsewhere}/a")
    turns = [turn_of(place, job_id) for job_id in (*jobs, third)]
    assert all(turn.begin() for turn in turns)
    begun = [turn.step({}, 4) for turn in turns]
    assert [len(one) for one in begun] == [2, 0, 1]
    assert turns[1].hand_over()[1] == tasks.HOSTS_BUSY_S
    # When one is done, its place is another's
    turns[0].step({begun[0][0].id: turns[0].process(begun[0][0])}, 0)
    again = turn_of(place, jobs[1], "next")
    with place.parts.db.session_scope() as session:
        job = store.lock(session, jobs[1])
        assert job is not None
        job.claimed_by = "next"
    assert again.begin()
    assert len(again.step({}, 4)) == 1


def test_a_busy_host_is_asked_for_a_place_once(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_of(place, make_job, *(f"{host.url}/{index}" for index in range(50)))
    turn = turn_of(place, job_id)
    assert turn.begin()
    asked: list[str] = []
    take = place.parts.signals.take_place

    def counted(where: str, who: str, places: int, seconds: int) -> bool:
        asked.append(where)
        return take(where, who, places, seconds)

    monkeypatch.setattr(place.parts.signals, "take_place", counted)
    assert len(turn.step({}, 8)) == 2
    assert len(asked) == 3


def test_hundreds_of_a_busy_host_are_not_in_the_way_of_others(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given a table that has all of two slow suppliers' first, and then one of another
    another = host.url.replace("127.0.0.1", "localhost")
    slow = [f"http://{name}.example/{index}_%.jpg" for name in ("a", "b") for index in range(150)]
    job_id = job_of(place, make_job, *slow, f"{another}/c")
    turn = turn_of(place, job_id)
    assert turn.begin()
    # When there is room for more than these may be asked for
    begun = turn.step({}, 8)
    # Then the other one is begun, too
    assert [item.index for item in begun] == [0, 1, 150, 151, 300]


def test_a_host_that_was_asked_too_often_is_left_alone_by_all(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given a host that counts, and says how long it wants to be left alone
    host.script([lambda _: Answer(429, headers={"Retry-After": "30"}), lambda _: Answer(body=PICTURE)])
    elsewhere = host.url.replace("127.0.0.1", "localhost")
    first = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b", f"{elsewhere}/c")
    second = job_of(place, make_job, f"{host.url}/d")
    turns = [turn_of(place, job_id) for job_id in (first, second)]
    assert all(turn.begin() for turn in turns)
    [refused] = turns[0].step({}, 1)
    outcome = turns[0].process(refused)
    # Then nobody asks it for anything else, and others are asked
    begun = turns[0].step({refused.id: outcome}, 4)
    assert [item.source_url for item in begun] == [f"{elsewhere}/c"]
    assert turns[1].step({}, 4) == []
    assert len(host.seen) == 1
    # And jobs look again when that makes sense, and not each second
    assert turns[1].hand_over()[1] == tasks.HOSTS_REST_S
    # When it has rested, all is made
    assert 25 < place.parts.signals.rests_for("127.0.0.1") <= 30
    place.parts.signals.leave_alone("127.0.0.1", 1)
    eventually(lambda: place.parts.signals.rests_for("127.0.0.1") == 0)
    change(place, first, due_at=None)
    turns[0].step({item.id: turns[0].process(item) for item in begun}, 0)
    work(turns[0])
    assert place.job(first).status is Status.COMPLETED
    assert [item.attempts for item in rows(place, first)] == [2, 1, 1]


def test_a_host_that_refuses_whatever_it_is_asked_is_not_waited_for(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a host that says each time that it is asked too often
    monkeypatch.setattr(tasks, "MOST_REFUSALS", 2)
    host.script([lambda _: Answer(429)])
    job_id = job_of(place, make_job, *(f"{host.url}/{index}" for index in range(4)))
    turn = turn_of(place, job_id)
    assert turn.begin()
    first = turn.step({}, 2)
    begun = turn.step({item.id: turn.process(item) for item in first}, 2)
    assert begun == []
    assert place.parts.signals.rests_for("127.0.0.1") == tasks.LEFT_ALONE_S
    # When it has rested, and still does
    place.parts.signals.leave_alone("127.0.0.1", 1)
    eventually(lambda: place.parts.signals.rests_for("127.0.0.1") == 0)
    work(turn)
    # Then the others are asked for once, and have failed
    found = rows(place, job_id)
    assert [(item.status, item.attempts) for item in found[2:]] == [(Status.FAILED, 1)] * 2
    assert found[3].error_message == "127.0.0.1 answered 429."
    # And one image from there ends the row
    place.parts.signals.take_place("127.0.0.1", "a", 4, 60)
    place.parts.signals.leave_place("127.0.0.1", "a", was_served=True)
    assert place.parts.signals.count_refusal("127.0.0.1") == 1


def test_a_store_of_places_that_is_away_is_no_reason_to_wait(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    job_id = job_of(place, make_job, *(f"{host.url}/{index}" for index in range(3)))
    turn = turn_of(place, job_id)
    assert turn.begin()
    place.parts.signals = Signals(connect("redis://127.0.0.1:1/0"))
    assert len(turn.step({}, 4)) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_what_is_away_is_asked_again_after_a_while(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, *, as_date: bool
) -> None:
    asked = formatdate(time.time() + 75, usegmt=True) if as_date else "60"

    def once(seen: Seen) -> Answer:
        tries = sum(one.path == seen.path for one in host.seen)
        return Answer(503, headers={"Retry-After": asked}) if tries <= 1 else Answer(body=PICTURE)

    host.script([once])
    job_id = job_of(place, make_job, f"{host.url}/a")
    turn = turn_of(place, job_id)
    assert turn.begin()
    work(turn)
    [item] = rows(place, job_id)
    assert item.status is Status.PENDING
    assert item.due_at is not None
    assert 55 < (item.due_at - now()).total_seconds() < 115
    assert 55 < turn.hand_over()[1] < 115
    # And as long as that, nobody takes the job for lost
    place_job = place.job(job_id)
    assert place_job.claimed_until is not None
    assert place_job.claimed_until > item.due_at
    # When its time has come
    change(place, job_id, due_at=None)
    expire_claim(place, job_id)
    turn = turn_of(place, job_id)
    assert turn.begin()
    work(turn)
    assert place.job(job_id).status is Status.COMPLETED


@pytest.mark.parametrize(
    ("answer", "code", "attempts"),
    [
        (Answer(404), "source_unavailable", 1),
        (Answer(503), "source_unavailable", ATTEMPTS),
        (Answer(reset=True), "source_unavailable", ATTEMPTS),
        (Answer(body=b"<html>"), "image_unreadable", 1),
        (Answer(302, headers={"Location": "ftp://x/"}), "source_refused", 1),
    ],
)
def test_how_a_file_fails(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, answer: Answer, code: str, attempts: int
) -> None:
    host.script([lambda _: answer])
    job_id = job_of(place, make_job, f"{host.url}/a")
    for _ in range(ATTEMPTS):
        change(place, job_id, due_at=None)
        expire_claim(place, job_id)
        turn = turn_of(place, job_id)
        if not turn.begin():
            break
        work(turn)
    [item], job = rows(place, job_id), place.job(job_id)
    assert (item.status, item.error_code, item.attempts) == (Status.FAILED, code, attempts)
    assert (job.status, job.error_code) == (Status.FAILED, code)
    assert stored(place) == []


def test_a_storage_that_is_away_costs_no_attempt(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable

    job_id = job_of(place, make_job, f"{host.url}/a")
    with monkeypatch.context() as patch:
        patch.setattr(place.parts.storage, "put", away)
        for _ in range(ATTEMPTS + 1):
            change(place, job_id, due_at=None)
            expire_claim(place, job_id)
            turn = turn_of(place, job_id)
            assert turn.begin()
            work(turn)
    [item] = rows(place, job_id)
    assert (item.status, item.attempts) == (Status.PENDING, 0)
    change(place, job_id, due_at=None)
    expire_claim(place, job_id)
    turn = turn_of(place, job_id)
    assert turn.begin()
    work(turn)
    assert place.job(job_id).status is Status.COMPLETED


def test_a_mistake_of_ours_is_one_items(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b")
    turn = turn_of(place, job_id)
    assert turn.begin()
    real = turn._fetch
    monkeypatch.setattr(turn, "_fetch", lambda item: real(item) if item.index else 1 / 0)
    work(turn)
    bad, good = rows(place, job_id)
    assert (bad.error_code, good.status) == ("internal", Status.COMPLETED)


# -- what comes late or twice -------------------------------------------------------------------------


def uploaded_job_of(place: Workplace, make_job: MakeJob, *pictures: bytes) -> UUID:
    asked = {"scale": 1.0, "thumbnail_sizes": [32], "priority": "normal"}
    job_id = make_job(pipeline="uploads", input=asked, total=len(pictures), takes_files=True)
    with place.parts.db.session_scope() as session:
        job = store.lock(session, job_id)
        assert job is not None
        items.plan(session, job, [Source(filename="a.jpg") for _ in pictures], now())
        store.dispatching(job, now())
    for index, picture in enumerate(pictures):
        place.parts.storage.put(ids.upload_key(job_id, index), picture, "application/octet-stream")
    return job_id


def test_a_message_that_comes_twice_is_one_worker(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given a turn that a worker has begun with, and its message once more: the connection was lost
    job_id = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b")
    first = turn_of(place, job_id)
    assert first.begin()
    begun = first.step({}, 1)
    first.step({begun[0].id: first.process(begun[0])}, 0)
    next_turn, _, _ = first.hand_over()
    worker = turn_of(place, job_id, next_turn)
    assert worker.begin()
    [item] = worker.step({}, 1)
    # Then nobody else begins with it
    assert not turn_of(place, job_id, next_turn).begin()
    assert worker.step({item.id: worker.process(item)}, 1) == []
    assert worker.is_over


def test_what_has_ended_stays_as_it_is(place: Workplace, make_job: MakeJob) -> None:
    # Given an item that is made, and whose file as it came is gone
    job_id = uploaded_job_of(place, make_job, PICTURE, PICTURE)
    turn = turn_of(place, job_id)
    assert turn.begin()
    first, second = turn.step({}, 2)
    assert turn.step({first.id: turn.process(first)}, 0) == []
    # When the same is told of it once more
    turn.step({first.id: turn.process(first), second.id: turn.process(second)}, 0)
    # Then the first word holds
    assert [item.status for item in rows(place, job_id)] == [Status.COMPLETED, Status.COMPLETED]
    assert place.job(job_id).status is Status.COMPLETED


def test_a_worker_of_an_earlier_run_spoils_nothing(place: Workplace, make_job: MakeJob) -> None:
    # Given a worker that is at it still when the job has failed, and is retried
    job_id = uploaded_job_of(place, make_job, PICTURE)
    late = turn_of(place, job_id)
    assert late.begin()
    [item] = late.step({}, 1)
    outcome = late.process(item)
    with place.parts.db.session_scope() as session:
        store.fail(session, job_id, Fault("deadline", "", retryable=True), now())
        job = store.lock(session, job_id)
        assert job is not None
        store.retry(session, job, now(), timedelta(hours=1))
    # And another, which has made the same, and not noted it yet
    turn = Turn(place.parts, job_id, 2, uuid4().hex)
    expire_claim(place, job_id)
    assert turn.begin()
    [again] = turn.step({}, 1)
    made = turn.process(again)
    # When the first comes back
    assert late.step({item.id: outcome}, 1) == []
    turn.step({again.id: made}, 1)
    # Then what is noted is stored
    [row] = rows(place, job_id)
    assert row.status is Status.COMPLETED
    assert row.key in stored(place)


def test_what_was_written_is_not_written_again(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # Given a database that went away before it had said that all was written
    job_id = job_of(place, make_job, f"{host.url}/a", f"{host.url}/b")
    turn = turn_of(place, job_id)
    assert turn.begin()
    [item, _] = turn.step({}, 2)
    done = {item.id: turn.process(item)}
    assert turn.step(done, 0) == []
    before = place.job(job_id).last_event
    # When the worker tries again, then nothing is told twice
    assert turn.step(done, 0) == []
    assert not turn.is_over
    assert place.job(job_id).last_event == before
    assert turn.counts() == {Status.COMPLETED: 1, Status.IN_PROGRESS: 1}


def test_a_database_that_is_away_for_a_while_is_waited_for(
    place: Workplace, make_job: MakeJob, host: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = job_of(place, make_job, f"{host.url}/a")
    monkeypatch.setattr(resources, "current", lambda: place.parts)
    monkeypatch.setattr(tasks, "DATABASE_ASKED_AGAIN_S", 0.01)
    real, away = Turn.step, [DatabaseUnavailable(), DatabaseUnavailable()]

    def step(turn: Turn, done: Mapping[UUID, Outcome], room: int) -> list[MediaItem]:
        if done and away:
            raise away.pop()
        return real(turn, done, room)

    monkeypatch.setattr(Turn, "step", step)
    done = process_items.apply(kwargs={"job_id": str(job_id), "run": 1}, task_id=str(job_id))
    assert done.get()["completed"] == 1
    assert away == []
    assert len(host.seen) == 1


def test_the_next_turn_is_due_in_whole_seconds(
    place: Workplace, make_job: MakeJob, host: ScriptedServer
) -> None:
    # On RabbitMQ nothing waits for less, and to ask for it is an error
    job_id = job_of(place, make_job, f"{host.url}/a")
    turn = turn_of(place, job_id)
    assert turn.begin()
    change(place, job_id, due_at=now() + timedelta(seconds=0.9))
    wait_s = turn.hand_over()[1]
    assert (wait_s, type(wait_s)) == (1, int)
