"""Server-sent events, as the WHATWG standard has them: bytes in, events out."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class StreamEvent:
    """One event. `id` is the last one that the stream has named, so it may be an earlier event's."""

    name: str
    data: str
    id: str | None


def read_events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Yields each event that is complete; what a cut stream leaves unfinished is dropped, as it must be."""
    name, last_id = "", None
    data: list[str] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield StreamEvent(name or "message", "\n".join(data), last_id)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines end with LF, CRLF or CR, wherever the chunks are cut."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    pending = ""
    for chunk in chunks:
        text = pending + decoder.decode(chunk)
        held_back = "\r" if text.endswith("\r") else ""  # maybe the first half of CRLF
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, pending = text.split("\n")
        pending += held_back
        yield from lines
