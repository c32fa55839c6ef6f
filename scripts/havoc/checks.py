"""What must be true of the facts. Pure: each check gets the facts, and says what is wrong with them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from backend.jobs import ids
from gpu_worker.faults import Faults
from gpu_worker.spoil import upload_fault
from scripts.havoc.facts import Facts, Seen, images_of
from scripts.havoc.load import ENDED
from scripts.havoc.orders import EVENTS, POISON

ENDINGS = {f"job.{status}": status for status in ENDED}
MADE = ("image.generated", "image.completed", "image.failed", "item.completed", "item.failed")
ENGINE_TURNS = 3  # how often a node gives an image to its engine before it fails
MOST_ATTEMPTS = 8  # of one image in one run, by far
UNREADABLE = "image_unreadable"
UPLOAD_FAULTS = {"original_corrupt": "bad_upload", "upload_failed": "upload_failed"}
OF_ALL = {"all_images_failed"}


@dataclass
class Check:
    """One question, how much it was asked of, and what was wrong."""

    name: str
    looked_at: int = 0
    violations: list[str] = field(default_factory=list)


def check_all(facts: Facts, faults: Faults) -> list[Check]:
    """Every check. `faults`: what the simulator was told to do, which explains failures."""
    jobs: dict[str, Callable[[Seen], Iterator[str]]] = {
        "each accepted job has ended": _ended,
        "the same key brings the same job": _same_job,
        "an end lasts": _lasting,
        "each index has one image": _indexes,
        "images and thumbnails can be read": _files,
        "failures come from simulated faults": lambda seen: _failures(seen, faults),
        "jobs are what their images are": _status,
        "answers are what the rows are": _answer,
        "events are numbered without a gap": _numbers,
        "each run ends once": _runs,
        "an image is made once a run": _generated,
        "events lead to the rows": _replay,
        "each webhook came, and no other": _webhooks,
    }
    found = [_of_jobs(name, facts, look) for name, look in jobs.items()]
    return [*found, *_of_the_rest(facts)]


def _of_jobs(name: str, facts: Facts, look: Callable[[Seen], Iterator[str]]) -> Check:
    violations = [f"{seen.name}: {wrong}" for seen in facts.seen for wrong in look(seen)]
    return Check(name, len(facts.seen), violations)


def _of_the_rest(facts: Facts) -> list[Check]:
    known, folders = _known_keys(facts), _folders_of_files(facts)
    orphans = [
        f"{key} belongs to nobody"
        for key in facts.objects
        if key not in known and not key.startswith(folders)
    ]
    wanted = {seen.placed.task_id for seen in facts.seen}
    strangers = [f"job {job_id} was ordered by nobody" for job_id in facts.rows - wanted]
    left = [f"{count} in {queue}" for queue, count in facts.left.items()]
    return [
        Check("no object belongs to nobody", len(facts.objects), orphans),
        Check("no job was made twice", len(facts.rows), strangers),
        Check("no message is left in the broker", len(left), left),
        Check("answers are right, or honest 503s", sum(facts.answers.values()), facts.wrong_answers),
        Check("no process is left", len(facts.left_running), facts.left_running),
        Check("processes end well when told to", len(facts.ended_badly), facts.ended_badly),
    ]


def _known_keys(facts: Facts) -> set[str]:
    """Every key that a job of the database can have."""
    keys: set[str] = set()
    for seen in facts.seen:
        if seen.row and not seen.placed.order.uploads:
            asked = seen.row["input"]
            keys.update(
                ids.object_keys(
                    UUID(seen.placed.task_id), range(seen.placed.order.count),
                    asked["output_format"], asked["thumbnail_sizes"],
                )
            )  # fmt: skip
    return keys


def _folders_of_files(facts: Facts) -> tuple[str, ...]:
    """Below which is what was uploaded, and what was made of it: its names say what is in it."""
    accepted = {
        UUID(seen.placed.task_id): seen.placed.order.count
        for seen in facts.seen
        if seen.row and seen.placed.order.uploads
    }
    kept = [ids.item_folder(job_id, index) for job_id, count in accepted.items() for index in range(count)]
    return (*kept, *(ids.folder(UUID(job_id)) for job_id in facts.reserved))


# -- jobs ---------------------------------------------------------------------------------------------


def _ended(seen: Seen) -> Iterator[str]:
    if not seen.placed.task_id:
        yield "it was never accepted"
    elif not seen.row:
        yield "it was accepted, and there is no row of it"
    elif seen.row["status"] not in ENDED:
        states = Counter(image["status"] for image in seen.images)
        yield f"it is {seen.row['status']}, its images {dict(states)}"


def _same_job(seen: Seen) -> Iterator[str]:
    if seen.again != seen.placed.task_id:
        yield f"its key brings {seen.again or 'none'}"


def _lasting(seen: Seen) -> Iterator[str]:
    yield from seen.placed.gone_back


def _indexes(seen: Seen) -> Iterator[str]:
    count = seen.placed.order.count
    canceled_early = seen.row.get("status") == "canceled" and not seen.images
    if [image["index"] for image in seen.images] != list(range(count)) and not canceled_early:
        yield f"it has the images {[image['index'] for image in seen.images]} where {count} were ordered"
    if len({image.get("seed", image["index"]) for image in seen.images}) != len(seen.images):
        yield "two of its images have the same seed"


def _files(seen: Seen) -> Iterator[str]:
    for image in images_of(seen.job):
        if image["status"] == "completed":
            for wrong in _file(seen, image):
                yield f"image {image['index']} {wrong}"


def _file(seen: Seen, image: dict[str, Any]) -> Iterator[str]:
    side, canceled = seen.placed.order.side, seen.row.get("status") == "canceled"
    file = seen.files.get(image["url"] or "")
    if file is None or file.size is None:
        corrupt = file is not None and file.status == 200
        if not (canceled and corrupt):  # what was stored when a job is canceled stays as it is
            yield f"can't be read: {file}"
        return
    if file.size != (side, side):
        yield f"has {file.size} pixels"
    if (file.bytes, file.sha256) != (image["bytes"], image["sha256"]):
        yield f"is another file than it says: {file}"
    if not image["thumbnails"] and not canceled:
        yield "has no thumbnails"
    for thumbnail in image["thumbnails"]:
        small = seen.files.get(thumbnail["url"])
        if small is None or small.size != (thumbnail["width"], thumbnail["height"]):
            yield f"has a thumbnail that can't be read: {small}"
        elif small.bytes != thumbnail["bytes"]:
            yield f"has a thumbnail that is another file than it says: {small}"


def _failures(seen: Seen, faults: Faults) -> Iterator[str]:
    """Those of all runs, as the events tell them: a retry makes the rows forget."""
    images = {image["index"]: image for image in seen.images}
    for run, events in enumerate(_by_run(seen), 1):
        codes = set()
        for event in events:
            error = event["data"].get("error")
            if event["type"] == "item.failed":
                index = event["data"]["index"]
                if (index, error["code"], error["retryable"]) != (
                    seen.placed.order.broken,
                    UNREADABLE,
                    False,
                ):
                    yield f"file {index} in run {run} failed with {error}"
            elif event["type"] == "image.failed" and error:
                index = event["data"]["index"]
                codes.add(error["code"])
                yield from _failure(f"image {index} in run {run}", error, images.get(index), run, faults)
            elif event["type"] == "job.failed" and (not error or error["code"] not in codes | OF_ALL):
                yield f"run {run} failed with {error}"
    for image in seen.images:
        if (image["error_code"] is not None) != (image["status"] == "failed"):
            yield f"image {image['index']} is {image['status']} with the error {image['error_code']}"


def _failure(
    name: str, error: dict[str, Any], image: dict[str, Any] | None, run: int, faults: Faults
) -> Iterator[str]:
    if image is None or not _explained(image["prompt"], image["seed"], run, error["code"], faults):
        yield f"{name} failed with {error['code']}, unprovoked: {error['message']}"
    elif error["retryable"] is not True:  # each of them may go away by itself
        yield f"{name} failed with {error['code']}, and shall not be tried again"


def _explained(prompt: str, image_seed: int, run: int, code: str, faults: Faults) -> bool:
    """Whether the simulator was told to let this image fail in this way."""
    if code == "worker_lost":
        return POISON in prompt or _kills(faults, prompt, image_seed, run)
    if code in UPLOAD_FAULTS:
        return upload_fault(faults, prompt, image_seed, run) == UPLOAD_FAULTS[code]
    return any(
        faults.met(prompt, image_seed, f"{run}:{attempt}:{ENGINE_TURNS}") == code
        for attempt in range(1, MOST_ATTEMPTS + 1)
    )


def _kills(faults: Faults, prompt: str, image_seed: int, run: int) -> bool:
    """Whether an image kills two nodes or more by itself: one more from outside, and that is enough."""
    deadly = sum(
        faults.met(prompt, image_seed, f"{run}:{attempt}:{turn}") in ("crash", "hang")
        for attempt in range(1, MOST_ATTEMPTS + 1)
        for turn in range(1, ENGINE_TURNS + 1)
    )
    return deadly >= 2


def _status(seen: Seen) -> Iterator[str]:
    status, states = seen.row.get("status"), {image["status"] for image in seen.images}
    if status not in ENDED:
        return
    if not states <= {"completed", "failed", "canceled"}:
        yield f"it is {status}, and images are {states}"
    expected = _expected_status(states)
    if status != "canceled" and status != expected:
        yield f"it is {status}, and its images {states or 'are not there'}"
    if status == "canceled" and not seen.placed.order.cancels:
        yield "it was canceled by nobody"
    if (status == "failed") != (seen.row["error_code"] is not None):
        yield f"it is {status} with the error {seen.row['error_code']}"


def _expected_status(states: set[str]) -> str:
    if states == {"completed"}:
        return "completed"
    return "partially_completed" if "completed" in states else "failed"


def _answer(seen: Seen) -> Iterator[str]:
    if not seen.job or not seen.row:
        return
    if seen.job["status"] != seen.row["status"]:
        yield f"the API says {seen.job['status']}, the row {seen.row['status']}"
    told = [(image["index"], image["status"], image["sha256"]) for image in images_of(seen.job)]
    kept = [(image["index"], image["status"], image["sha256"]) for image in seen.images]
    if told != kept:
        yield f"the API says {told}, the rows {kept}"
    done = sum(image["status"] == "completed" for image in seen.images)
    if seen.row["status"] in ENDED and seen.job["progress"]["completed"] != done:
        yield f"progress says {seen.job['progress']}, and {done} are completed"


# -- events -------------------------------------------------------------------------------------------


def _numbers(seen: Seen) -> Iterator[str]:
    numbers = [event["seq"] for event in seen.events]
    if numbers != list(range(1, len(numbers) + 1)) or seen.row.get("last_event", 0) != len(numbers):
        yield f"its events have the numbers {numbers}, the last should be {seen.row.get('last_event')}"


def _by_run(seen: Seen) -> list[list[dict[str, Any]]]:
    runs: list[list[dict[str, Any]]] = [[]]
    for event in seen.events:
        if event["type"] == "job.retried":
            runs.append([])
        runs[-1].append(event)
    return runs


def _runs(seen: Seen) -> Iterator[str]:
    runs = _by_run(seen)
    if seen.row and len(runs) != seen.row["run"]:
        yield f"it is in run {seen.row['run']}, its events tell of {len(runs)}"
    for number, events in enumerate(runs, 1):
        ends = [event["type"] for event in events if event["type"] in ENDINGS]
        if len(ends) != 1:
            yield f"run {number} has the ends {ends}"
        elif events[-1]["type"] not in ENDINGS:
            yield f"run {number} goes on after its end: {[event['type'] for event in events[-3:]]}"


def _generated(seen: Seen) -> Iterator[str]:
    for number, events in enumerate(_by_run(seen), 1):
        for kind in MADE:
            counts = Counter(event["data"]["index"] for event in events if event["type"] == kind)
            for index, count in counts.items():
                if count > 1:
                    yield f"{kind} {count} times for image {index} in run {number}"


def _replay(seen: Seen) -> Iterator[str]:
    images: dict[int, str] = {}
    job = ""
    for event in seen.events:
        if event["type"].startswith(("image.", "item.")):
            images[event["data"]["index"]] = event["data"]["status"]
        else:
            job = event["data"]["status"]
    if not seen.row:
        return
    if job != seen.row["status"]:
        yield f"its events say {job}, the row {seen.row['status']}"
    ends_with_job = {"canceled"} if seen.placed.order.uploads else set()  # told by the job's own event
    for image in seen.images:
        if images.get(image["index"]) != image["status"] and image["status"] not in ends_with_job:
            yield f"image {image['index']} is {image['status']}, its events say {images.get(image['index'])}"


def _webhooks(seen: Seen) -> Iterator[str]:
    types = Counter(
        event["type"] for event in seen.events if seen.placed.order.webhook and event["type"] in EVENTS
    )
    came: Counter[str] = Counter(kind for _, kind in {(one.webhook_id, one.type) for one in seen.deliveries})
    for kind in sorted({*types, *came}):
        if types[kind] != came[kind]:
            yield f"{types[kind]} webhooks of {kind} were due, {came[kind]} came"
