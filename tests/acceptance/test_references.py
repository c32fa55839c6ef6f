"""A reference on its whole way through real processes, up to the hands of the engine."""

from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from contract.messages import GenerateImage
from contract.queues import gpu_queue
from gpu_worker.reference import References
from tests.acceptance.stack import Stack, stack
from tests.backend.images.samples import corners, encode, quarters
from tests.gpu_worker.http_server import Answer, ScriptedServer
from tests.services import RedisServer

PICTURE = encode(quarters(400, 200), "JPEG")


@pytest.fixture
def broker_url(shared_redis: RedisServer) -> str:
    return shared_redis.new_url()


@pytest.fixture
def system(broker_url: str, tmp_path: Path) -> Iterator[Stack]:
    """API and worker; the node is the test itself."""
    with stack(
        tmp_path,
        FANFARE_BROKER_URL=broker_url,
        FANFARE_MODELS="paint",
        FANFARE_REFERENCE_ALLOW_PRIVATE="true",
        FANFARE_REFERENCE_ALLOW_HTTP="true",
    ) as made:
        made.start("api")
        made.start("worker")
        made.wait_until_ready()
        yield made


def test_what_the_engine_gets_is_what_the_url_led_to(system: Stack, broker_url: str) -> None:
    # Given somebody's picture, and a page where it was
    with ScriptedServer() as host:
        host.script(
            [lambda seen: Answer(body=PICTURE) if seen.path == "/shop.jpg" else Answer(body=b"<html>")]
        )
        # When images are asked for that start from each
        asked = {"model": "paint", "count": 2, "width": 128, "height": 64}
        good = system.submit(**asked, reference={"url": host.url + "/shop.jpg"})
        bad = system.submit(**asked, reference={"url": host.url + "/gone"})
        # Then one fails, and costs no prompts
        job = system.ended(bad)
        assert (job["status"], job["error"]["code"], job["images"]) == ("failed", "reference_refused", [])
        # And for the other each node gets a picture of the size that was asked for, fetched once
        messages = [taken(broker_url) for _ in range(2)]
        assert {str(message.job_id) for message in messages} == {good}
        assert [message.task for message in messages] == ["image-to-image"] * 2
        for message in messages:
            picture = References().load(message, seconds_left=20).reference
            assert picture is not None
            assert picture.size == (128, 64)
            assert corners(picture) == ["red", "green", "blue", "yellow"]
        assert sorted(seen.path for seen in host.seen) == ["/gone", "/shop.jpg"]


def taken(broker_url: str) -> GenerateImage:
    """What a node would get next."""
    with kombu.Connection(broker_url) as connection:
        queue = connection.SimpleQueue(gpu_queue("paint"))
        message = queue.get(timeout=40)
        message.ack()
        queue.close()
        return GenerateImage.model_validate(message.payload[0][0])
