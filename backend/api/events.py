"""`GET /v1/jobs/{task_id}/events`: what happens to a job, as Server-Sent Events.

`job` and `image` events come from the durable log and carry its number as their id, so that a client that
reconnects with `Last-Event-ID` misses nothing and gets nothing twice. `progress` and `preview` events are for
the eye: they are not kept and have no id. Who reads slowly gets the newest of them, not all.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import Field

from backend import views
from backend.api import present
from backend.api.dependencies import OwnerDep, ResourcesDep, TaskId
from backend.api.documentation import header, problems
from backend.api.feed import Feed, FeedDep
from backend.errors import DatabaseUnavailable, NotFound
from backend.jobs import events, items
from backend.jobs.models import ENDED, JobEvent
from backend.pipelines.base import WebhookEvent
from backend.resources import Resources

HEARTBEAT_S = 15
BEATS_UNREAD = 4  # after so many, a job that somebody is at work on is read again though nothing was heard
RECONNECT_MS = 2000
DATABASE_PAUSE_S = 1.0

router = APIRouter(prefix="/jobs", tags=["jobs"])


class Preview(views.View):
    """How an unfinished image looks by now."""

    task_id: UUID = Field(description="The job.")
    image_id: UUID
    index: int = Field(description="Its place in the job, from 0.")
    content_type: Literal["image/jpeg"] = "image/jpeg"
    data: str = Field(
        description="The picture, in base64: `data:image/jpeg;base64,` and this is a URL for it."
    )


_IMAGE_EVENTS = [event for event in get_args(WebhookEvent) if event.startswith("image.")]
_ITEM_EVENTS = [event for event in get_args(WebhookEvent) if event.startswith("item.")]
_ABOUT_A_JOB = {"type": "string", "format": "uuid", "description": "The job."}
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["job", "image", "item", "progress", "preview"]},
        "id": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "For `Last-Event-ID`; not of `progress` and `preview`.",
        },
        "retry": {"type": "integer", "description": "Milliseconds to wait before a reconnect."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": "#/components/schemas/Job"},
                    {
                        "allOf": [{"$ref": "#/components/schemas/Image"}],
                        "properties": {"type": {"enum": _IMAGE_EVENTS}, "task_id": _ABOUT_A_JOB},
                        "required": ["type", "task_id"],
                    },
                    {
                        "allOf": [{"$ref": "#/components/schemas/Item"}],
                        "properties": {"type": {"enum": _ITEM_EVENTS}, "task_id": _ABOUT_A_JOB},
                        "required": ["type", "task_id"],
                    },
                    {
                        "allOf": [{"$ref": "#/components/schemas/Progress"}],
                        "properties": {"task_id": _ABOUT_A_JOB},
                        "required": ["task_id"],
                    },
                    Preview.model_json_schema(mode="serialization"),
                ]
            },
        },
    },
}
_STREAM: dict[str, Any] = {
    "description": (
        "`event: job` with the job whenever its status changes, and after each `step` of those that are made "
        "of steps; `event: image` with the image, its `type` "
        "(`image.started`, `image.requeued`, `image.generated`, `image.completed`, `image.failed`, "
        "`image.canceled`) and `task_id`; `event: item` likewise (`item.completed`, `item.failed`) for jobs "
        "that take files; `event: progress` without an id; for jobs with `preview`, `event: "
        "preview` with a small picture of an unfinished image, without an id. Ends after the job has."
    ),
    "headers": {"Cache-Control": header("`no-cache`.")},
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "itemSchema": _EVENT,  # OpenAPI 3.2; older readers see the text
            "example": 'event: image\ndata: {"type": "image.generated", "index": 0, "...": "..."}\nid: 4\n\n',
        }
    },
}


class EventStreamResponse(StreamingResponse):
    """Says what it is, and asks proxies not to hold it back."""

    media_type = "text/event-stream"


@dataclass(frozen=True)
class News:
    """What is to be sent next."""

    events: list[JobEvent]
    job: views.Job
    ended: bool
    items: dict[int, views.Item]  # that the events are about


@router.get(
    "/{task_id}/events",
    operation_id="stream_job_events",
    response_class=EventStreamResponse,
    responses=problems(401, 404, 422, 503)
    | {
        200: _STREAM,
        204: {"description": "The job has ended and you have seen all of it: don't reconnect."},
    },
)
async def stream_job_events(
    task_id: TaskId,
    resources: ResourcesDep,
    owner: OwnerDep,
    feed: FeedDep,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            pattern="^[0-9]{0,9}$",
            description="The id of the last event you have seen; browsers send it themselves.",
            examples=["4"],
        ),
    ] = None,
) -> Response:
    """Streams what happens to the job, from its beginning or from where you were."""
    seq = _seq_of(last_event_id)
    news = await feed.in_thread(_read, resources, task_id, owner, seq)
    if news.ended and not news.events:
        return Response(status_code=204)
    stream = _stream(resources, task_id, owner, feed, seq, news)
    return EventStreamResponse(stream, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def _seq_of(last_event_id: str | None) -> int:
    return int(last_event_id) if last_event_id else 0


def _read(resources: Resources, job_id: UUID, owner: str, seq: int) -> News:
    with resources.db.read_scope() as session:
        row = present.find(session, job_id, owner)
        found = events.since(session, job_id, seq)
        waiting_for = present.why_waiting(resources, session, row)
        about = [event.data["index"] for event in found if event.type.startswith("item.")]
        rows = items.by_index(session, job_id, about) if about else {}
    job = views.render(resources, row, waiting_for=waiting_for)
    told = {index: views.render_item(resources, item, row) for index, item in rows.items()}
    return News(found, job, ended=row.status in ENDED, items=told)


async def _stream(
    resources: Resources, job_id: UUID, owner: str, feed: Feed, seq: int, news: News
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RECONNECT_MS, comment="fanfare")
    told = b""
    shown: dict[int, str] = {}  # by index, the preview that was sent last
    with feed.watching(job_id, previews=bool(news.job.input.get("preview"))):
        while True:
            # No name is left for a row or a view: thousands of streams wait, and each would hold its own.
            for frame in [_format(event, news) for event in news.events]:
                yield frame
            seq = news.events[-1].seq if news.events else seq
            if (news.ended and _is_all(news)) or feed.closing:
                return
            quiet, signs = not news.events, feed.signs(job_id)
            frame = _format_progress(job_id, news.job, signs.progress)
            if frame != told:
                told, quiet = frame, False
                yield frame
            for index, image_id in _unfinished(news.job):
                # Looked up when its turn has come: the newest
                jpeg = feed.signs(job_id).previews.get(index)
                if jpeg and jpeg != shown.get(index):
                    shown[index], quiet = jpeg, False
                    yield _format_preview(job_id, image_id, index, jpeg)
            if quiet:
                yield KEEPALIVE_COMMENT
            beats = 1 if news.job.waiting_for else BEATS_UNREAD
            del news
            while not await feed.wait(job_id, seq, HEARTBEAT_S, signs) and (beats := beats - 1):
                yield KEEPALIVE_COMMENT
            while True:
                try:
                    news = await feed.in_thread(_read, resources, job_id, owner, seq)
                    break
                except NotFound:  # deleted meanwhile
                    return
                except DatabaseUnavailable:
                    yield format_sse_event(comment="the database is away")
                    await asyncio.sleep(DATABASE_PAUSE_S)
                    if feed.closing:
                        return


def _is_all(news: News) -> bool:
    """Whether the last of the job's events was among these; there may be more than one read gives."""
    return not news.events or news.events[-1].type in events.ENDINGS.values()


def _format(event: JobEvent, news: News) -> bytes:
    name = event.type.partition(".")[0]
    if name == "image":
        image = next((image for image in news.job.images if image.index == event.data["index"]), None)
        data = _part(event, news.job, image)
    elif name == "item":
        data = _part(event, news.job, news.items.get(event.data["index"]))
    else:
        data = views.as_json(news.job) | event.data
    return format_sse_event(event=name, id=str(event.seq), data_str=_dump(data))


def _part(event: JobEvent, job: views.Job, part: views.Image | views.Item | None) -> dict[str, Any]:
    """The image or item as it is now, but for what the event says of it as it was then."""
    now = views.as_json(part) if part else {}
    return now | event.data | {"type": event.type, "task_id": str(job.task_id)}


def _format_progress(job_id: UUID, job: views.Job, fractions: dict[int, float]) -> bytes:
    extra = sum(
        0.9 * fractions.get(image.index, 0.0)
        for image in job.images
        if image.status == "in_progress" and image.url is None
    )
    fraction = min(job.progress.fraction + extra / max(job.progress.total, 1), 0.99)
    data = views.as_json(job.progress) | {
        "task_id": str(job_id),
        "fraction": round(fraction, 4),
        "waiting_for": views.as_json(job.waiting_for) if job.waiting_for else None,
        "images": [{"index": index, "fraction": value} for index, value in sorted(fractions.items())],
    }
    return format_sse_event(event="progress", data_str=_dump(data))


def _unfinished(job: views.Job) -> list[tuple[int, UUID]]:
    return [
        (image.index, image.id)
        for image in job.images
        if image.url is None and image.status in ("pending", "in_progress")
    ]


def _format_preview(job_id: UUID, image_id: UUID, index: int, jpeg: str) -> bytes:
    preview = Preview(task_id=job_id, image_id=image_id, index=index, data=jpeg)
    return format_sse_event(event="preview", data_str=_dump(views.as_json(preview)))


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
