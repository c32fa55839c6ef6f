"""The checks find what is wrong: facts that are good are damaged one by one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.jobs import ids
from gpu_worker.faults import Faults
from scripts.havoc.checks import check_all
from scripts.havoc.facts import Facts, File, Seen
from scripts.havoc.load import Placed
from scripts.havoc.orders import EVENTS, POISON, Order
from scripts.havoc.receiver import Delivery

FAULTS = Faults.parse(f"out_of_memory=0.2,bad_upload=0.2,poison={POISON}")
UNPROVOKED, UNREADABLE = "failures come from simulated faults", "images and thumbnails can be read"
WEBHOOKS, INCONSISTENT = "each webhook came, and no other", "jobs are what their images are"
ANOTHER, BADLY = "the same key brings the same job", "processes end well when told to"
Damage = Callable[[Facts], object]


def good(*, webhook: bool = True) -> Facts:
    """One job of two images, both made, all as it should be."""
    job_id = uuid4()
    order = Order(0, "chaos-1-0", 0, "a lighthouse", 2, 64, 7, webhook=webhook, cancels=False, retries=False)
    images = [_image(index) for index in range(2)]
    row = {"id": job_id, "status": "completed", "run": 1, "error_code": None, "last_event": 9,
           "input": {"output_format": "webp", "thumbnail_sizes": [32]}}  # fmt: skip
    events = _events()
    told = [_told(index) for index in range(2)]
    seen = Seen(
        Placed(order, str(job_id)), str(job_id), _job("completed", told), row, images, events,
        _deliveries(str(job_id), events) if webhook else [],
        {one["url"]: File(200, 100, "s", (64, 64)) for one in told}
        | {small["url"]: File(200, 50, "t", (32, 32)) for one in told for small in one["thumbnails"]},
    )  # fmt: skip
    keys = [ids.original_key(UUID(str(job_id)), 0, "webp"), ids.thumbnail_key(job_id, 1, 32, "webp")]
    return Facts([seen], {str(job_id)}, keys, {}, [], {"200": 10})


def _job(status: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    return {"status": status, "images": images, "progress": {"completed": len(images)}}


def _image(index: int) -> dict[str, Any]:
    return {"index": index, "status": "completed", "run": 1, "prompt": f"a light {index}", "seed": index,
            "attempts": 1, "error_code": None, "error_retryable": None, "sha256": "s"}  # fmt: skip


def _told(index: int) -> dict[str, Any]:
    small = {"width": 32, "height": 32, "bytes": 50, "url": f"http://s/{index}/32"}
    return {"index": index, "status": "completed", "url": f"http://s/{index}", "bytes": 100, "sha256": "s",
            "thumbnails": [small]}  # fmt: skip


def _events() -> list[dict[str, Any]]:
    job = [("job.created", "pending"), ("job.started", "in_progress"), ("job.planned", "in_progress")]
    happened: list[tuple[str, dict[str, Any]]] = [(kind, {"status": status}) for kind, status in job]
    for kind, status in (("image.generated", "in_progress"), ("image.completed", "completed")):
        happened += [(kind, {"index": index, "status": status}) for index in range(2)]
    happened += [("job.completed", {"status": "completed"})]
    happened.insert(3, ("image.started", {"index": 0, "status": "in_progress"}))
    return [{"seq": seq, "type": kind, "data": data} for seq, (kind, data) in enumerate(happened, 1)]


def _deliveries(task_id: str, events: list[dict[str, Any]]) -> list[Delivery]:
    return [
        Delivery(f"msg_{event['seq']}", event["type"], task_id) for event in events if event["type"] in EVENTS
    ]


def found(facts: Facts) -> dict[str, list[str]]:
    return {check.name: check.violations for check in check_all(facts, FAULTS) if check.violations}


def test_good_facts_are_good() -> None:
    assert found(good()) == {}
    assert found(good(webhook=False)) == {}
    assert all(check.looked_at for check in check_all(good(), FAULTS)[:13])


def job(facts: Facts) -> Seen:
    return facts.seen[0]


def fail(facts: Facts, code: str, *, retryable: bool = True) -> None:
    """The second image has failed, or the second file, and everybody says so."""
    one = job(facts)
    kind = "item" if one.placed.order.uploads else "image"
    for image in (one.images[1], one.job[f"{kind}s"][1]):
        image["status"] = "failed"
    one.images[1] |= {"error_code": code, "error_retryable": retryable}
    one.row["status"] = one.job["status"] = "partially_completed"
    one.job["progress"]["completed"] = 1
    error = {"code": code, "message": "", "retryable": retryable}
    one.events[-2] |= {"type": f"{kind}.failed", "data": {"index": 1, "status": "failed", "error": error}}
    one.events[-1] |= {"type": "job.partially_completed", "data": {"status": "partially_completed"}}
    one.deliveries = _deliveries(one.placed.task_id, one.events)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "it runs": (lambda facts: job(facts).row.update(status="in_progress"), "each accepted job has ended"),
    "its row is gone": (lambda facts: job(facts).row.clear(), "each accepted job has ended"),
    "the key brings another": (lambda facts: setattr(job(facts), "again", "x"), ANOTHER),
    "an end that did not last": (
        lambda facts: job(facts).placed.gone_back.append("failed became completed"), "an end lasts"
    ),
    "an image is missing": (lambda facts: job(facts).images.pop(), "each index has one image"),
    "an image is there twice": (
        lambda facts: job(facts).images.append(_image(1)), "each index has one image"
    ),
    "the original is gone": (
        lambda facts: job(facts).files.update({"http://s/0": File(404)}), UNREADABLE
    ),
    "the original is broken": (
        lambda facts: job(facts).files.update({"http://s/0": File(200, 100, "s", None)}),
        UNREADABLE,
    ),
    "the original is another": (
        lambda facts: job(facts).files.update({"http://s/0": File(200, 100, "other", (64, 64))}),
        UNREADABLE,
    ),
    "a thumbnail has another size": (
        lambda facts: job(facts).files.update({"http://s/0/32": File(200, 50, "t", (16, 16))}),
        UNREADABLE,
    ),
    "there is no thumbnail": (
        lambda facts: job(facts).job["images"][0]["thumbnails"].clear(), UNREADABLE
    ),
    "failed without a reason": (lambda facts: fail(facts, "deadline_exceeded"), UNPROVOKED),
    "lost, and not poisoned": (lambda facts: fail(facts, "worker_lost"), UNPROVOKED),
    "it failed in a run that was retried": (
        lambda facts: job(facts).events.extend(
            [
                {"seq": 10, "type": "job.failed", "data": {"status": "failed", "error": {"code": "x"}}},
                {"seq": 11, "type": "job.retried", "data": {"status": "pending"}},
            ]
        ),
        UNPROVOKED,
    ),
    "an error of what is made": (
        lambda facts: job(facts).images[0].update(error_code="internal"), UNPROVOKED
    ),
    "all images are made, and it failed": (
        lambda facts: job(facts).row.update(status="failed", error_code="internal"),
        INCONSISTENT,
    ),
    "canceled by nobody": (
        lambda facts: job(facts).row.update(status="canceled"), INCONSISTENT
    ),
    "the API says another thing": (
        lambda facts: job(facts).job.update(status="failed"), "answers are what the rows are"
    ),
    "the progress is wrong": (
        lambda facts: job(facts).job["progress"].update(completed=1), "answers are what the rows are"
    ),
    "an event is missing": (lambda facts: job(facts).events.pop(4), "events are numbered without a gap"),
    "the last event is missing": (
        lambda facts: job(facts).row.update(last_event=10), "events are numbered without a gap"
    ),
    "it ended twice": (
        lambda facts: job(facts).events[2].update(type="job.failed"), "each run ends once"
    ),
    "it went on after its end": (
        lambda facts: job(facts).events.append(
            {"seq": 10, "type": "image.completed", "data": {"index": 1, "status": "completed"}}
        ),
        "each run ends once",
    ),
    "a run without events": (lambda facts: job(facts).row.update(run=2), "each run ends once"),
    "an image was generated twice": (
        lambda facts: job(facts).events[5]["data"].update(index=0), "an image is made once a run"
    ),
    "events lead elsewhere": (
        lambda facts: job(facts).events[7]["data"].update(status="failed"), "events lead to the rows"
    ),
    "a webhook did not come": (lambda facts: job(facts).deliveries.pop(), WEBHOOKS),
    "a webhook came twice, as two": (
        lambda facts: job(facts).deliveries.append(
            Delivery("msg_77", "job.completed", job(facts).placed.task_id)
        ),
        WEBHOOKS,
    ),
    "an object of nobody": (
        lambda facts: facts.objects.append(f"jobs/{uuid4()}/000/original.webp"), "no object belongs to nobody"
    ),
    "an object that no image has": (
        lambda facts: facts.objects.append(f"jobs/{job(facts).placed.task_id}/002/original.webp"),
        "no object belongs to nobody",
    ),
    "a job of nobody": (lambda facts: facts.rows.add(str(uuid4())), "no job was made twice"),
    "a message is left": (lambda facts: facts.left.update(default=1), "no message is left in the broker"),
    "a 500": (lambda facts: facts.wrong_answers.append("GET /: 500"), "answers are right, or honest 503s"),
    "a process is left": (lambda facts: facts.left_running.append("7 python"), "no process is left"),
    "a process was killed": (lambda facts: facts.ended_badly.append("node-1"), BADLY),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_is_found(name: str) -> None:
    damage, check = DAMAGES[name]
    facts = good()

    damage(facts)

    assert check in found(facts)


def test_the_same_webhook_may_come_twice() -> None:
    facts = good()
    job(facts).deliveries.append(job(facts).deliveries[0])

    assert found(facts) == {}


def test_a_failure_that_the_simulator_was_told_to_make() -> None:
    facts = good()
    fail(facts, "out_of_memory")
    image = job(facts).images[1]
    image["prompt"] = next(
        prompt for number in range(99)
        if FAULTS.met(prompt := f"a cat {number}", image["seed"], "1:1:3") == "out_of_memory"
    )  # fmt: skip
    assert found(facts) == {}

    job(facts).events[7]["data"]["error"]["retryable"] = False
    assert UNPROVOKED in found(facts)


def test_a_poisoned_prompt_loses_its_nodes() -> None:
    facts = good()
    fail(facts, "worker_lost")
    job(facts).images[1]["prompt"] = f"a cat with {POISON}"

    assert found(facts) == {}


def test_a_retried_job_ends_once_in_each_run() -> None:
    facts = good(webhook=False)
    one = job(facts)
    one.events[8]["data"]["status"] = "failed"
    one.events[8]["type"] = "job.partially_completed"
    one.events += [
        {"seq": 10, "type": "job.retried", "data": {"status": "pending"}},
        {"seq": 11, "type": "image.generated", "data": {"index": 0, "status": "in_progress"}},
        {"seq": 12, "type": "image.completed", "data": {"index": 0, "status": "completed"}},
        {"seq": 13, "type": "job.completed", "data": {"status": "completed"}},
    ]
    one.row |= {"run": 2, "last_event": 13}

    assert found(facts) == {}


def files(*, broken: int | None = None) -> Facts:
    """The same of a job of two files."""
    facts = good()
    one = job(facts)
    one.placed.order = replace(one.placed.order, uploads=True, broken=broken)
    one.job |= {"items": one.job["images"], "images": []}
    for image in one.images:
        del image["seed"], image["prompt"]
    del one.events[3:6]  # nodes have no part in it
    for seq, event in enumerate(one.events, 1):
        event |= {"seq": seq, "type": event["type"].replace("image.", "item.")}
    one.row["last_event"] = len(one.events)
    one.deliveries = _deliveries(one.placed.task_id, one.events)
    facts.objects = [f"{ids.item_folder(UUID(one.placed.task_id), 1)}0123456789abcdef.jpeg"]
    return facts


def test_good_files_are_good() -> None:
    assert found(files()) == {}


def test_a_file_that_is_no_image_may_fail_and_no_other() -> None:
    facts = files(broken=1)
    fail(facts, "image_unreadable", retryable=False)
    assert found(facts) == {}
    for other, code, retryable in (
        (files(broken=0), "image_unreadable", False),
        (files(broken=1), "worker_lost", True),
        (files(broken=1), "image_unreadable", True),
    ):
        fail(other, code, retryable=retryable)
        assert UNPROVOKED in found(other)


def test_what_is_wrong_with_files_is_found() -> None:
    twice, gone, orphan = files(), files(), files()
    job(twice).events[4]["data"]["index"] = 0
    assert "an image is made once a run" in found(twice)
    job(gone).files["http://s/0"] = File(404)
    assert UNREADABLE in found(gone)
    stranger = uuid4()
    orphan.objects.append(ids.item_folder(stranger, 0) + "a.jpeg")
    assert "no object belongs to nobody" in found(orphan)
    orphan.reserved.add(str(stranger))  # its request was cut off: the sweep erases it later
    assert found(orphan) == {}


def test_files_that_are_canceled_with_their_job_have_no_events() -> None:
    facts = files()
    one = job(facts)
    one.placed.order = replace(one.placed.order, cancels=True)
    for image in (one.images[1], one.job["items"][1]):
        image["status"] = "canceled"
    one.row["status"] = one.job["status"] = "canceled"
    one.job["progress"]["completed"] = 1
    one.events[4] = {"seq": 5, "type": "job.canceled", "data": {"status": "canceled"}}
    del one.events[5]
    one.row["last_event"] = 5
    one.deliveries = _deliveries(one.placed.task_id, one.events)
    assert found(facts) == {}
