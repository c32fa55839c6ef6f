"""Polls and accepts per second, the API and the bare endpoint taking turns."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from scripts.benchmarks.api import load, rows
from scripts.benchmarks.api.load import Ask
from scripts.benchmarks.api.servers import House, Server
from scripts.benchmarks.figures import Figures, Goal, say
from scripts.benchmarks.rounds import Measured, Way, in_turns, times_as_fast

READ, INSERT = "bare endpoint, one read", "bare endpoint, one insert"
POLL, UNCHANGED, ACCEPT = "poll, finished job", "poll, not changed (304)", "accept"
CEILING = "client alone"
COMPARED: Final[Sequence[tuple[str, str | None, Goal | None]]] = (
    (READ, None, None),
    (INSERT, None, None),
    (POLL, READ, Goal("ratio", ">=", 0.5)),
    (UNCHANGED, READ, None),
    (ACCEPT, INSERT, None),
    (CEILING, None, None),
)


def measure(figures: Figures, house: House, *, rounds: int, requests: int, clients: int) -> None:
    """Adds rates, their ratios, and what a request costs the server's process."""
    asks = _asks(house)
    say(f"{requests} requests of each kind in a round, {clients} at once")
    ways = {
        name: Way(
            requests,
            lambda server=server, ask=ask: load.run(server.url, [ask], requests, clients),  # type: ignore[misc]
            server.cpu_seconds,
        )
        for name, (server, ask) in asks.items()
    }
    for server, ask in asks.values():  # opens connections, and meets everything once
        load.run(server.url, [ask], min(requests, 200), clients)
        rows.remove_pending(house.database)
    found = in_turns(ways, rounds, of="a request", tidy=lambda: rows.remove_pending(house.database))
    tell(figures, found)


def tell(figures: Figures, found: Mapping[str, Measured]) -> None:
    """Rates first, then processor time, which neighbours on the machine disturb less."""
    for way, against, goal in COMPARED:
        versus = f", against the {against}" if against else ""
        ratio = times_as_fast(found[way], found[against]) if against else None
        rate = found[way].rate
        figures.add(f"{way}{versus}", rate, "requests/s", baseline=rate / ratio if ratio else None, goal=goal)
    for way, against, _ in COMPARED:
        if found[way].cpu and way != CEILING:
            base = 1000 * statistics.median(found[against].cpu) if against else None
            versus = f", against the {against}" if against else ""
            cost = 1000 * statistics.median(found[way].cpu)
            figures.add(f"CPU time of the process for a request: {way}{versus}", cost, "ms", baseline=base)


def _asks(house: House) -> dict[str, tuple[Server, Ask]]:
    """What is asked of whom."""
    api, bare = house.api, house.bare
    path = f"/v1/jobs/{rows.add_finished(house.database)}"
    poll = load.request(api.url, "GET", path, 200)
    answer = load.run(api.url, [poll], 1, 1).last
    head, _, body = answer.partition(load.HEAD_END)
    etag = next(line for line in head.decode().splitlines() if line.lower().startswith("etag: "))[6:]
    document = rows.add_document(house.database, body.decode())
    say(f"a finished job of {rows.IMAGES} images is {len(body)} bytes of JSON")
    order = json.dumps({"message": "a lighthouse at night", "count": rows.IMAGES}).encode()
    return {
        READ: (bare, load.request(bare.url, "GET", f"/documents/{document}", 200)),
        POLL: (api, poll),
        UNCHANGED: (api, load.request(api.url, "GET", path, 304, headers={"If-None-Match": etag})),
        INSERT: (bare, load.request(bare.url, "POST", "/documents", 202, body=order)),
        ACCEPT: (api, load.request(api.url, "POST", "/v1/thumbnails", 202, body=order)),
        CEILING: (house.ceiling, load.request(house.ceiling.url, "GET", "/", 200)),
    }
