"""Thousands of event streams on one API process: what each holds in memory, and how fast all are told."""

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from scripts.benchmarks.api import load, rows
from scripts.benchmarks.api.servers import House
from scripts.benchmarks.figures import Figures, Goal, say

OPENED_AT_ONCE = 50
SETTLE_S: Final = 3.0
TOLD_WITHIN_S: Final = 180.0
POLLS: Final = 400
POLLERS: Final = 2
WARM: Final = 50  # streams that are opened and closed again before memory is measured
KIB: Final = 1024
MEMORY: Final = Goal("value", "<=", 40)
MARK: Final = b"image.started"


@dataclass
class Streams:
    """Open streams, each of a job of its own."""

    url: str
    opened: list["_Stream"] = field(default_factory=list)
    told: int = 0  # streams that have had a MARK since `forget`

    async def open(self, job_ids: list[UUID]) -> None:
        """Returns when each has had its first event."""
        for start in range(0, len(job_ids), OPENED_AT_ONCE):
            batch = job_ids[start : start + OPENED_AT_ONCE]
            streams = await asyncio.gather(*(self._open(job_id) for job_id in batch))
            await asyncio.gather(*(stream.began for stream in streams))
            self.opened += streams

    async def _open(self, job_id: UUID) -> "_Stream":
        host, port = load.place_of(self.url)
        asked = load.request(self.url, "GET", f"/v1/jobs/{job_id}/events", 200).data
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: _Stream(self, asked), host, port)
        return stream

    def forget(self) -> None:
        """From now on all are to be told anew."""
        self.told = 0
        for stream in self.opened:
            stream.told = False

    async def wait_until_told(self, count: int) -> None:
        """Raises `TimeoutError`."""
        async with asyncio.timeout(TOLD_WITHIN_S):
            while self.told < count:
                await asyncio.sleep(0.002)

    def close(self) -> None:
        """All of them."""
        for stream in self.opened:
            stream.close()
        self.opened = []


class _Stream(asyncio.Protocol):
    def __init__(self, all_of_them: Streams, asked: bytes) -> None:
        self._all, self._asked = all_of_them, asked
        self._tail = b""
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        self._tail = data[1 - len(MARK) :]
        if b"event: " in data and not self.began.done():
            self.began.set_result(None)
        if not self.told and MARK in data:
            self.told = True
            self._all.told += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.began.done():
            self.began.set_exception(load.Refused(f"a stream was closed: {exc}"))

    def close(self) -> None:
        self._transport.abort()


def measure(figures: Figures, house: House, *, count: int) -> None:
    """Adds memory, latencies of polls with and without the streams, and how long news takes."""
    asyncio.run(_measure(figures, house, count))


async def _measure(figures: Figures, house: House, count: int) -> None:
    poll = load.request(house.api.url, "GET", f"/v1/jobs/{rows.add_finished(house.database)}", 200)
    job_ids = rows.add_running(house.database, count)
    streams = Streams(house.api.url)
    await streams.open(job_ids[:WARM])
    streams.close()
    await asyncio.sleep(SETTLE_S)
    before = house.api.memory_bytes()
    alone = await _polls(house, poll)
    say(f"opening {count} streams")
    took = await _seconds(lambda: streams.open(job_ids))
    await asyncio.sleep(SETTLE_S)
    after = house.api.memory_bytes()
    busy = await _share_of_a_core(house)
    beside = await _polls(house, poll)
    one = [await _tell(streams, house, [job_id]) for job_id in job_ids[:10]]
    every = await _tell(streams, house, job_ids)
    what = f"{count} streams"
    if before is not None and after is not None:
        each = (after - before) / count / KIB
        figures.add(f"{what}: memory of the API process for each", each, "KiB", goal=MEMORY)
    if busy is not None:
        figures.add(f"{what}: processor of the API process while nothing happens", 100 * busy, "%")
    figures.add(f"{what}: until all are open", took, "s")
    for name, of in (("median", 0.5), ("p95", 0.95)):
        figures.add(
            f"{what}: latency of a poll, {name}, against the same without streams",
            1000 * _quantile(beside, of), "ms", baseline=1000 * _quantile(alone, of),
        )  # fmt: skip
    figures.add(f"{what}: from a commit to the stream of its job, median", statistics.median(one), "s")
    figures.add(f"{what}: from a commit about all jobs to the last of the streams", every, "s")
    streams.close()


async def _polls(house: House, poll: load.Ask) -> list[float]:
    polls = load.Load([poll], POLLS)
    await polls.run(house.api.url, POLLERS)
    return polls.latencies


async def _share_of_a_core(house: House) -> float | None:
    before = house.api.cpu_seconds()
    await asyncio.sleep(SETTLE_S)
    after = house.api.cpu_seconds()
    return None if before is None or after is None else (after - before) / SETTLE_S


async def _tell(streams: Streams, house: House, job_ids: list[UUID]) -> float:
    """Seconds from the commit of an event of each of these jobs until their streams have it."""
    await asyncio.sleep(0.5)
    streams.forget()
    await asyncio.to_thread(rows.add_event, house.database, job_ids)
    return await _seconds(lambda: streams.wait_until_told(len(job_ids)))


async def _seconds(do: Callable[[], Coroutine[None, None, None]]) -> float:
    begun = time.perf_counter()
    await do()
    return time.perf_counter() - begun


def _quantile(values: list[float], of: float) -> float:
    return sorted(values)[int(of * (len(values) - 1))]
