"""Server-sent events, however the network cuts them."""

import pytest

from backend.client.event_stream import StreamEvent, read_events

STREAM = (
    "\ufeff: a comment\nretry: 2000\n\n"
    "event: job\ndata: {\ndata: }\nid: 1\n\n"
    "data: plain\r\n\r\n"
    "event: image\rdata:ümlaut 灯\rid: 2\r\r"
    "event: nothing\nid: 3\n\n"
    "data: unfinished"
)
EVENTS = [
    StreamEvent("job", "{\n}", "1"),
    StreamEvent("message", "plain", "1"),
    StreamEvent("image", "ümlaut 灯", "2"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_wherever_the_chunks_are_cut(size: int) -> None:
    data = STREAM.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]

    assert list(read_events(chunks)) == EVENTS
