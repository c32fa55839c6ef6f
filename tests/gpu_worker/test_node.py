"""Acceptance: a real node process, a real Valkey, a real storage over HTTP, and images that must end once."""

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from PIL import Image

from contract.messages import GenerateImage
from contract.node_access import NODE_UNACKED
from contract.queues import DEFAULT_QUEUE, GENERATE_IMAGE, TAKE_REPORTS, celery_settings, gpu_queue
from contract.signals import Signals, connect
from tests.gpu_worker.http_server import ScriptedServer
from tests.gpu_worker.messages import message, upload_to
from tests.gpu_worker.processes import Running, alive, children_of, eventually
from tests.gpu_worker.valkey import Valkey

START = Callable[..., Running]


class House:
    """All that a node needs around it."""

    def __init__(self, valkey: Valkey, storage: ScriptedServer, folder: Path) -> None:
        self.valkey = valkey
        self._folder = folder
        self.storage = storage
        self.app = Celery("house", set_as_current=False)
        self.app.conf.update(celery_settings(valkey.url, valkey.url))
        self.told: list[dict[str, Any]] = []  # by nodes
        self.store = valkey.client()
        self._connection = connect(valkey.url)
        self.signals = Signals(self._connection)
        self._started: list[Running] = []

    def node(self, *arguments: str, name: str = "n", **settings: Any) -> Running:
        environment = {
            "FANFARE_BROKER_URL": self.valkey.url,
            "FANFARE_NODE_NAME": name,
            "FANFARE_NODE_ANNOUNCE_S": "0.3",
            "TMPDIR": str(self._folder),  # signs of life
            **{f"FANFARE_{key.upper()}": str(value) for key, value in settings.items()},
        }
        return self._start(["-m", "gpu_worker", *arguments], environment)

    def images(self, count: int, **changes: Any) -> list[GenerateImage]:
        job_id = uuid4()
        return [
            message(
                **{
                    "job_id": job_id,
                    "index": index,
                    "model": "sketch",
                    "height": 64,
                    "prompt": f"prompt {index}",
                    "upload": upload_to(f"{self.storage.url}/{index}?signature=s3cr3t-signature"),
                    **changes,
                }
            )
            for index in range(count)
        ]

    def send(self, images: list[GenerateImage]) -> list[UUID]:
        """As the backend publishes them; their ids."""
        for image in images:
            self.app.send_task(GENERATE_IMAGE, (image.to_wire(),), queue=gpu_queue(image.model))
        return [image.image_id for image in images]

    def reports(self, *kinds: str) -> list[dict[str, Any]]:
        """What nodes have told until now: in place of the backend, the test takes it."""
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            while (taken := channel.basic_get(DEFAULT_QUEUE, no_ack=True)) is not None:
                assert taken.headers["task"] == TAKE_REPORTS
                self.told += taken.decode()[0][0]
        return [report for report in self.told if report["kind"] in kinds]

    def ends(self) -> list[dict[str, Any]]:
        return self.reports("generated", "failure")

    def results(self, image_ids: list[UUID], seconds: float = 60) -> list[dict[str, Any]]:
        """How each of these images has ended, in their order; each must have ended once."""
        wanted = [str(image_id) for image_id in image_ids]

        def found() -> dict[str, dict[str, Any]]:
            ends = {report["image_id"]: report for report in self.ends()}
            return ends if set(wanted) <= set(ends) else {}

        ends: dict[str, dict[str, Any]] = eventually(found, seconds, what="the images' ends")
        return [ends[image_id] for image_id in wanted]

    def uploads(self) -> list[str]:
        return [seen.path.partition("?")[0] for seen in self.storage.seen]

    def nodes(self) -> list[str]:
        return [node.node for node in self.signals.nodes() if node.state == "ready"]

    def end(self) -> None:
        for running in self._started:
            running.end()
        self.app.close()
        self.store.close()
        self._connection.close()

    def _start(self, arguments: list[str], environment: dict[str, str]) -> Running:
        self._started.append(Running(arguments, environment))
        return self._started[-1]


@pytest.fixture
def house(own_valkey: Valkey, storage: ScriptedServer, tmp_path: Path) -> Iterator[House]:
    house = House(own_valkey, storage, tmp_path)
    yield house
    house.end()


def nobody_waits(house: House, model: str = "sketch") -> bool:
    return house.store.llen(gpu_queue(model)) == 0 and house.store.hlen(NODE_UNACKED["unacked_key"]) == 0


def test_four_images_from_start_to_end(house: House) -> None:
    node = house.node()
    eventually(house.nodes)
    images = house.images(4, output_format="png")

    results = house.results(house.send(images))

    assert [result["index"] for result in results] == [0, 1, 2, 3]
    assert {result["kind"] for result in results} == {"generated"}
    assert sorted(house.uploads()) == ["/0", "/1", "/2", "/3"]
    stored = {seen.path.partition("?")[0]: seen.body for seen in house.storage.seen}
    picture = Image.open(io.BytesIO(stored["/2"]))
    assert picture.size == (64, 64)
    assert picture.text["prompt"] == "prompt 2"  # type: ignore[attr-defined]
    assert sorted(report["index"] for report in house.reports("started")) == [0, 1, 2, 3]
    eventually(lambda: house.signals.nodes()[0].done == 4)
    assert house.node("health").wait() == 0
    assert nobody_waits(house)

    children = children_of(node.pid)
    node.send(signal.SIGTERM)

    assert node.wait() == 0
    assert len(children) == 1
    assert not alive(children[0])
    assert house.signals.nodes() == []
    assert house.node("health").wait() == 1
    assert len(house.ends()) == len(images)
    assert "pa55-w0rd" not in node.said
    assert "s3cr3t-signature" not in node.said


@pytest.mark.parametrize("grace", [10, 0], ids=["what is begun is finished", "what is begun is handed back"])
def test_a_node_that_leaves_hands_the_rest_to_another(house: House, grace: float) -> None:
    first = house.node(name="first", sketch_delay_s=1, node_drain_s=grace)
    eventually(house.nodes)
    images = house.images(6)
    sent = house.send(images)
    eventually(house.uploads)

    first.send(signal.SIGTERM)
    assert first.wait() == 0
    made_by_first = len(house.uploads())
    assert 1 <= made_by_first < 6
    assert house.store.llen(gpu_queue("sketch")) == 6 - made_by_first  # at once, not after a timeout
    house.node(name="second")

    results = house.results(sent)
    assert [result["index"] for result in results] == list(range(6))
    assert {result["kind"] for result in results} == {"generated"}
    assert {result["attempts"] for result in results} <= ({1} if grace else {1, 2})
    assert sorted(house.uploads()) == [f"/{index}" for index in range(6)]
    assert len(house.ends()) == len(images)
    eventually(lambda: nobody_waits(house))


def test_a_canceled_job_stops_within_its_image(house: House) -> None:
    house.node(sketch_delay_s=30)
    eventually(house.nodes)
    images = house.images(3)
    sent = house.send(images)
    eventually(lambda: house.signals.progress([images[0].job_id])[images[0].job_id], what="progress")

    begun = time.monotonic()
    house.signals.end(images[0].job_id, 1, [], may_wait=True)

    results = house.results(sent)
    assert [result["code"] for result in results] == ["canceled"] * 3
    assert time.monotonic() - begun < 25
    assert house.uploads() == []


def redeliver_what_is_lost(house: House) -> None:
    """What Celery does for a dead consumer's messages once their visibility timeout has passed."""
    with house.app.connection_for_write() as connection:
        given = connection.transport_options or {}
        connection.transport_options = {**given, **NODE_UNACKED, "visibility_timeout": 0}
        channel: Any = connection.channel()
        channel.qos.restore_visible(interval=1)
        channel.close()


def test_a_killed_process_is_started_again_and_its_image_is_made_once(house: House) -> None:
    node = house.node(sketch_delay_s=2)
    eventually(house.nodes)
    (image,) = images = house.images(1)
    sent = house.send(images)
    eventually(lambda: house.signals.progress([image.job_id])[image.job_id], what="progress")

    (child,) = children_of(node.pid)
    os.kill(child, signal.SIGKILL)
    node.says("ended (-9)")
    node.says("Ready", times=2)
    redeliver_what_is_lost(house)

    (result,) = house.results(sent)
    assert (result["kind"], result["attempts"]) == ("generated", 2)
    assert house.uploads() == ["/0"]
    assert len(house.ends()) == len(images)


def test_a_prompt_that_was_lost_too_often_ends_as_a_record_and_spares_its_siblings(house: House) -> None:
    poison, other = images = house.images(2)
    for _ in range(3):
        house.signals.receive(poison.job_id, poison.image_id, poison.run)
        house.signals.count_alone(poison.image_id, poison.run)
    house.node()

    first, second = house.results(house.send(images))

    assert (first["code"], first["retryable"]) == ("worker_lost", True)
    assert second["image_id"] == str(other.image_id)
    assert second["kind"] == "generated"


def test_the_broker_may_come_late_and_go_for_a_while(house: House) -> None:
    house.valkey.stop()
    node = house.node(sketch_delay_s=1)
    node.says("refused the connection: nothing listens there (FANFARE_BROKER_URL)")
    house.valkey.start()
    node.says("Ready")
    first = house.send(house.images(1))
    eventually(lambda: house.reports("started"), what="in hand")

    house.valkey.stop()
    time.sleep(2.5)  # the image is finished meanwhile
    house.valkey.start()

    eventually(house.nodes, what="announced again")
    assert house.results(first)[0]["kind"] == "generated"
    assert house.uploads() == ["/0"]
    assert house.results(house.send(house.images(2)))[1]["kind"] == "generated"
    assert "Traceback" not in node.said
    assert "next start" not in node.said  # its models are still loaded
    node.send()
    assert node.wait() == 0


@pytest.mark.parametrize(
    ("password", "said"),
    [("wrong", "refused the user name or the password"), ("", "wants a password, and none is in the URL")],
)
def test_a_wrong_password_is_told_and_the_node_can_still_be_ended(
    house: House, password: str, said: str
) -> None:
    credentials = f":{password}@" if password else ""
    node = house.node(broker_url=f"redis://{credentials}127.0.0.1:{house.valkey.port}/0")

    node.says(said)
    node.send(signal.SIGINT)

    assert node.wait(60) == 0
    assert "wrong" not in node.said


def test_a_killed_launcher_takes_its_node_along_in_good_order(house: House) -> None:
    node = house.node()
    eventually(house.nodes)
    (child,) = children_of(node.pid)

    node.send(signal.SIGKILL)
    node.wait()

    eventually(lambda: not alive(child))
    assert house.signals.nodes() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"broker_url": ""}, "FANFARE_BROKER_URL: Field required"),
        ({"broker_url": "amqp://u:p@h//"}, "FANFARE_RESULT_URL is needed"),
        ({"node_engines": "etching"}, "no engine etching; there are: sketch, openai"),
        ({"node_engines": "openai"}, "needs FANFARE_IMAGES_API_KEY"),
        ({"node_concurrency": "many"}, "FANFARE_NODE_CONCURRENCY: Input should be a valid integer"),
    ],
)
def test_settings_that_no_node_can_run_with(house: House, settings: dict[str, str], said: str) -> None:
    node = house.node(**settings)

    assert node.wait() == 2
    assert said in node.said
    assert "Traceback" not in node.said


def test_check_tells_what_is_set_and_what_is_to_mend(house: House) -> None:
    good = house.node("check")
    assert good.wait() == 0
    assert "All is well" in good.said
    assert "sketch" in good.said
    assert "pa55-w0rd" not in good.said

    house.valkey.stop()
    bad = house.node("--check")
    assert bad.wait() == 1
    assert bad.said.count("To mend: ") == 2


def test_a_message_of_nonsense_ends_as_a_record(house: House) -> None:
    house.node()
    eventually(house.nodes)
    job_id, image_id = uuid4(), uuid4()
    for nonsense in ({"job_id": "x"}, {"job_id": str(job_id), "image_id": str(image_id), "index": 3}):
        house.app.send_task(GENERATE_IMAGE, (nonsense,), queue=gpu_queue("sketch"))

    (result,) = house.results([image_id])

    assert (result["code"], result["job_id"], result["index"]) == ("invalid_request", str(job_id), 3)
    eventually(lambda: nobody_waits(house))
    assert len(house.ends()) == 1, "nobody can be told of the one without a job"
