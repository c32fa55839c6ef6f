"""What an e-mail about a job says: in plain text, and the same in HTML."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import Any

from backend.notify.base import Notification

MOST_LISTED = 20  # images, files, or parts of an output
MOST_CHARACTERS = 300  # of one prompt, message or reason

# Their ends are broken where they must, and none needs a server that takes 8 bits.
_ENCODING = "quoted-printable"


@dataclass(frozen=True)
class _Line:
    text: str
    link: str | None = None


def write(notification: Notification, *, sender: Address, recipient: str) -> EmailMessage:
    """The letter. Its Message-ID is the same each time, so that a mailbox can tell repeats."""
    letter = EmailMessage(policy=SMTP)
    letter["From"] = sender
    letter["To"] = recipient
    letter["Subject"] = _subject(notification)
    letter["Date"] = format_datetime(notification.timestamp.astimezone(UTC))
    letter["Message-ID"] = f"<{notification.id}.{_short(recipient)}@{sender.domain}>"
    letter["Auto-Submitted"] = "auto-generated"  # nobody's holiday notice answers it
    lines = list(_lines(notification.data))
    letter.set_content("\n".join(map(_as_text, lines)) + "\n", cte=_ENCODING)
    letter.add_alternative(_as_html(lines), subtype="html", cte=_ENCODING)
    return letter


def _subject(notification: Notification) -> str:
    """Nothing of what users write: only what we know ourselves, and in one line."""
    data = notification.data
    what = notification.type.replace(".", " ").replace("_", " ")
    return f"Fanfare: {_one_line(data.get('pipeline'))}, {what} ({_counted(data)})"[:MOST_CHARACTERS]


def _short(recipient: str) -> str:
    return hashlib.sha256(recipient.lower().encode()).hexdigest()[:12]


def _counted(data: dict[str, Any]) -> str:
    progress = data.get("progress") or {}
    done, total = progress.get("completed", 0), progress.get("total", 0)
    unit = " files" if data.get("items") else " images" if data.get("images") else ""
    return f"{done} of {total}{unit}" if total else str(data.get("status", ""))


# -- what it says -------------------------------------------------------------------------------------


def _lines(data: dict[str, Any]) -> Iterator[_Line]:
    status = _one_line(data.get("status")).replace("_", " ")
    yield _Line(f"The job {data.get('task_id')} ({_one_line(data.get('pipeline'))}) is {status}.")
    message = (data.get("input") or {}).get("message")
    if message:
        yield _Line(f"Message: {_one_line(message)}")
    if error := data.get("error"):
        yield _Line(f"Why it failed: {_one_line(error.get('message'))} ({error.get('code')})")
    yield from _images(data.get("images") or [])
    yield from _files(data.get("items") or [], (data.get("progress") or {}).get("total", 0))
    yield from _output(data.get("output") or {})
    link = (data.get("urls") or {}).get("get")
    if link:
        yield _Line("All of it", link)


def _images(images: list[dict[str, Any]]) -> Iterator[_Line]:
    for image in images[:MOST_LISTED]:
        yield _of_one(image, image.get("prompt"))
    if len(images) > MOST_LISTED:
        yield _Line(f"... and {len(images) - MOST_LISTED} more images.")
    expiries = [image["url_expires_at"] for image in images if image.get("url_expires_at")]
    if expiries:
        until = datetime.fromisoformat(min(expiries)).astimezone(UTC)
        yield _Line(f"The links work until {until:%Y-%m-%d %H:%M} UTC.")


def _files(items: list[dict[str, Any]], total: int) -> Iterator[_Line]:
    """The job's view has the first of them; there may be thousands."""
    for item in items[:MOST_LISTED]:
        yield _of_one(item, item.get("filename") or item.get("source_url"))
    if items and total > MOST_LISTED:
        yield _Line(f"... and {total - MOST_LISTED} more files.")


def _of_one(entry: dict[str, Any], called: object) -> _Line:
    name = f"{entry['index'] + 1}. {_one_line(called)}"
    if error := entry.get("error"):
        return _Line(f"{name}: failed, {_one_line(error.get('message'))}")
    return _Line(name if entry.get("url") else f"{name}: {entry.get('status')}", entry.get("url"))


def _output(output: dict[str, Any]) -> Iterator[_Line]:
    """What a job without images came to."""
    for name, value in list(output.items())[:MOST_LISTED]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield _Line(f"{_one_line(name)}: {_one_line(text)}")


def _one_line(value: object) -> str:
    """Without newlines and control characters, and not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value or "")).split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


# -- how it looks -------------------------------------------------------------------------------------


def _as_text(line: _Line) -> str:
    return f"{line.text}\n   {line.link}" if line.link else line.text


def _as_html(lines: list[_Line]) -> str:
    parts = "\n".join(f"<p>{_html_of(line)}</p>" for line in lines)
    return f'<!doctype html>\n<html><head><meta charset="utf-8"></head>\n<body>\n{parts}\n</body></html>\n'


def _html_of(line: _Line) -> str:
    text = escape(line.text)
    if line.link and line.link.startswith(("https://", "http://")):
        return f'<a href="{escape(line.link)}">{text}</a>'
    return text
