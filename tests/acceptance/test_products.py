"""A table of 500 products through real processes, and every kind of URL that one may find in it."""

import csv
import io
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult
from PIL import Image

from contract.queues import celery_settings
from tests.acceptance.stack import Part, Stack, stack
from tests.backend.images.samples import encode, quarters
from tests.gpu_worker.http_server import Answer, ScriptedServer, Seen
from tests.services import RedisServer, free_port

MAX_BYTES = 6 * 1024 * 1024
TIMEOUT_S = 2
METADATA = "http://169.254.169.254/latest/meta-data/"
HEADER = "serial number,product name,input image URLs,output image URLs\n"

LARGE = encode(Image.effect_noise((4000, 3000), 20).convert("RGB"), "JPEG", quality=60)  # 12 megapixels


def picture(number: int) -> bytes:
    """Another one for each product."""
    image = quarters(200, 100)
    image.putpixel((3, 3), (number % 256, number // 256, 9))
    return encode(image)


class Shop:
    """The servers of others. Everything is good, unless its path says something else."""

    def __init__(self, server: ScriptedServer) -> None:
        self.url = server.url
        self._asked: Counter[str] = Counter()

    def answer(self, seen: Seen) -> Answer:
        """By the first word of the path."""
        self._asked[seen.path] += 1
        _, kind, number = seen.path.split("/")
        if kind == "slow":
            return Answer(body=picture(1), drip_s=0.05)
        if kind == "huge":
            return Answer(body=b"\xff" * (MAX_BYTES + 1))
        if kind == "moved":
            return Answer(302, headers={"Location": f"{self.url}/good/{number}"})
        if kind == "inwards":
            return Answer(302, headers={"Location": METADATA})
        if kind == "round":
            return Answer(302, headers={"Location": f"{self.url}{seen.path}"})
        if kind == "page":
            return Answer(body=b"<html>not found</html>", headers={"Content-Type": "image/png"})
        if kind == "gone":
            return Answer(404)
        if kind == "flapping" and self._asked[seen.path] < 3:
            return Answer(503)
        return Answer(body=LARGE if kind == "large" else picture(int(number)))


KINDS: dict[str, tuple[int, str | None]] = {  # how many of 500, and why they fail
    "moved": (20, None),
    "flapping": (10, None),
    "large": (12, None),
    "slow": (8, "source_unavailable"),
    "dead": (8, "source_unavailable"),
    "gone": (20, "source_unavailable"),
    "round": (4, "source_unavailable"),
    "huge": (6, "source_refused"),
    "inwards": (6, "source_refused"),
    "private": (6, "source_refused"),
    "page": (20, "image_unreadable"),
}


def url_of(kind: str, number: int, shop: Shop, dead: int) -> str:
    if kind == "dead":
        return f"http://127.0.0.1:{dead}/{number}"
    if kind == "private":
        return f"{METADATA}{number}"
    host = shop.url.replace("127.0.0.1", "localhost") if kind == "slow" else shop.url  # one host of its own
    return f"{host}/{kind}/{number}"


def kinds() -> list[str]:
    """One for each of 500 products, well mixed."""
    bad = [kind for kind, (count, _) in KINDS.items() for _ in range(count)]
    mixed = bad + ["good"] * (500 - len(bad))
    random.Random(7).shuffle(mixed)
    return mixed


@pytest.fixture
def system(shared_redis: RedisServer, tmp_path: Path) -> Iterator[Stack]:
    with stack(
        tmp_path,
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_REFERENCE_ALLOW_PRIVATE="true",
        FANFARE_REFERENCE_ALLOW_HTTP="true",
        FANFARE_REFERENCE_TIMEOUT_S=str(TIMEOUT_S),
        FANFARE_MAX_REFERENCE_BYTES=str(MAX_BYTES),
        FANFARE_REDISPATCH_AFTER_S="3",
        FANFARE_SWEEP_INTERVAL_S="1",
    ) as made:
        made.start("api")
        made.start("worker")
        made.wait_until_ready()
        yield made


def resident_bytes(part: Part) -> int:
    """Of the largest process of the part."""
    largest = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == part.process.pid:
                pages = int((entry / "statm").read_text().split()[1])
                largest = max(largest, pages * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, IndexError):
            continue
    return largest


class Watch:
    """How much memory a part takes, as time goes by."""

    def __init__(self, part: Part) -> None:
        self.seen: list[int] = []
        self._part = part
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.seen.append(resident_bytes(self._part))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def items_of(system: Stack, task_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url: str | None = f"{system.url}/v1/jobs/{task_id}/items?limit=500"
    while url:
        page = httpx.get(url, timeout=30).raise_for_status().json()
        found += page["results"]
        url = page["next"]
    return found


def test_a_table_of_500_through_a_killed_worker(system: Stack, shared_redis: RedisServer) -> None:
    with ScriptedServer() as server:
        shop, dead = Shop(server), free_port()
        server.script([shop.answer])
        asked = kinds()
        urls = [url_of(kind, number, shop, dead) for number, kind in enumerate(asked)]
        table = HEADER + "".join(f"P-{number},Product {number},{url},\n" for number, url in enumerate(urls))
        # When the table is imported, and its images made as one job
        answer = httpx.post(
            f"{system.url}/v1/products/import", params={"images": True}, content=table,
            headers={"Content-Type": "text/csv"}, timeout=60,
        )  # fmt: skip
        report = answer.json()
        assert (report["created"], report["failed_count"]) == (500, 0)
        task_id = report["task_id"]
        # And the worker dies in its midst
        system.until(lambda: system.job(task_id)["progress"]["completed"] > 100)
        job = system.job(task_id)
        assert job["status"] == "in_progress"
        assert 0.2 < job["progress"]["fraction"] < 1
        celery = Celery("a user's", set_as_current=False)
        celery.conf.update(
            celery_settings(system.env["FANFARE_BROKER_URL"], system.env["FANFARE_BROKER_URL"])
        )
        result: AsyncResult[Any] = AsyncResult(task_id, app=celery)
        assert str(result.state) == "PROGRESS"
        assert result.info["total"] == 500
        system.parts[1].kill()
        heir = system.start("worker")
        watch = Watch(heir)
        job = system.ended(task_id, within_s=300)
        # Then every image is there, or says why not
        assert job["status"] == "partially_completed"
        items = items_of(system, task_id)
        assert len(items) == 500
        told = {kind: Counter[str | None]() for kind in set(asked)}
        for item, kind in zip(items, asked, strict=True):
            told[kind][item["error"]["code"] if item["error"] else None] += 1
        assert told == {
            kind: {reason: asked.count(kind)} for kind, (_, reason) in (KINDS | {"good": (0, None)}).items()
        }
        assert all(item["error"]["message"] for item in items if item["error"])
        # And is stored once, under its own name
        stored = [path for path in (system.folder / "files" / "products").rglob("*") if path.is_file()]
        good = [item for item in items if item["status"] == "completed"]
        assert len(stored) == len(good) == 500 - sum(count for count, reason in KINDS.values() if reason)
        # And the table that comes out has a pair for each
        text = httpx.get(f"{system.url}/v1/products/export", timeout=60).content.decode("utf-8-sig")
        rows = {row["serial number"]: row for row in csv.DictReader(io.StringIO(text))}
        for number, item in enumerate(items):
            assert rows[f"P-{number}"]["output image URLs"] == (item["url"] or "")
        made = Image.open(io.BytesIO(httpx.get(good[0]["url"], timeout=30).raise_for_status().content))
        assert made.size in ((100, 50), (2000, 1500))
        # And Celery's users see its end
        deadline = time.monotonic() + 60
        while result.state != "SUCCESS" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert result.get(timeout=60)["completed"] == len(good)
        # And the memory is flat: made again and again, the largest of them take what they took at first
        large = [f"P-{number}" for number, kind in enumerate(asked) if kind == "large"]
        peaks = []
        for _ in range(4):
            watch.seen.clear()
            again = httpx.post(
                f"{system.url}/v1/products/images",
                json={"which": "all", "serial_numbers": large},
                timeout=30,
            )
            assert system.ended(again.json()["task_id"])["status"] == "completed"
            peaks.append(max(watch.seen))
        watch.stop()
        assert max(peaks) < 800e6
        assert max(peaks[2:]) < max(peaks[:2]) * 1.2, peaks


def test_by_default_nothing_near_is_asked(shared_redis: RedisServer, tmp_path: Path) -> None:
    with ScriptedServer() as server, stack(
        tmp_path, FANFARE_BROKER_URL=shared_redis.new_url(), FANFARE_REFERENCE_ALLOW_HTTP="true"
    ) as system:  # fmt: skip
        system.start("api")
        system.start("worker")
        system.wait_until_ready()
        given = {"serial_number": "A", "name": "A", "image_urls": []}
        product = httpx.post(f"{system.url}/v1/products", json=given, timeout=30).json()
        here = [server.url.replace("127.0.0.1", host) for host in ("127.0.0.1", "localhost")]
        near = [*here, f"http://[::ffff:127.0.0.1]:{server.server_port}/a", "http://10.0.0.1/a", METADATA]
        answer = httpx.post(
            f"{system.url}/v1/products/{product['id']}/images", json={"image_urls": near}, timeout=30
        )
        job = system.ended(answer.json()["task_id"])
        assert {item["error"]["code"] for item in job["items"]} == {"source_refused"}
        assert server.seen == []
