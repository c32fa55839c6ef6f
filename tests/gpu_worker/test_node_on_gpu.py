"""Acceptance on a GPU: the launcher pins a process to the device, which makes images and ends in good order.

Without a GPU these skip, in CI as well.
"""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.gpu_worker.engines.diffusers.conftest import ABSENT
from tests.gpu_worker.http_server import ScriptedServer
from tests.gpu_worker.processes import alive, children_of, eventually
from tests.gpu_worker.test_node import House
from tests.gpu_worker.valkey import Valkey

CATALOG = """
[models.tiny]
source = "./sdxl"
family = "sdxl"
license = "none needed"
defaults = { width = 64, height = 64, steps = 4, guidance = 5.0 }
limits = { min_size = 32, max_size = 256, max_steps = 1000, batch = 4 }
"""


def has_gpu() -> bool:
    if ABSENT:
        return False
    import torch

    return torch.cuda.is_available()


if not has_gpu():
    pytest.skip("no GPU here", allow_module_level=True)


@pytest.fixture
def house(own_valkey: Valkey, storage: ScriptedServer, tmp_path: Path) -> Iterator[House]:
    house = House(own_valkey, storage, tmp_path)
    yield house
    house.end()


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    from tests.gpu_worker.engines.diffusers.tiny import build

    build("sdxl", tmp_path / "sdxl")
    file = tmp_path / "catalog.toml"
    file.write_text(CATALOG, "utf-8")
    return file


def variables_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_from_start_to_end(house: House, catalog: Path) -> None:
    # Given a node that was told nothing of devices
    node = house.node(node_engines="diffusers", node_catalog=catalog)
    eventually(house.nodes, 120, what="a node that is ready")
    (announced,) = house.signals.nodes()
    (pinned,) = children_of(node.pid)

    # When images are asked for
    images = house.images(6, model="tiny", width=64, height=64, output_format="png")
    results = house.results(house.send(images), 120)

    # Then the GPU made them, in a process that sees no other
    assert announced.device.kind == "cuda"
    assert (announced.device.memory_bytes or 0) > 2**30
    variables = variables_of(pinned)
    assert variables["CUDA_VISIBLE_DEVICES"].startswith("GPU-")
    assert variables["FANFARE_SLOT"] == "cuda0"
    assert [result["kind"] for result in results] == ["generated"] * 6, results
    assert {result["made_with"]["device_kind"] for result in results} == {"cuda"}
    assert all(Image.open(io.BytesIO(seen.body)).size == (64, 64) for seen in house.storage.seen)

    # And it ends in good order
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    assert not alive(pinned)


def test_a_process_that_dies_is_replaced_and_has_the_device_again(house: House, catalog: Path) -> None:
    node = house.node(node_engines="diffusers", node_catalog=catalog, node_devices="cuda0")
    eventually(house.nodes, 120, what="a node that is ready")
    (pinned,) = children_of(node.pid)
    (first,) = house.results(house.send(house.images(1, model="tiny", width=64)), 120)

    house.send(house.images(1, model="tiny", width=64, steps=1000))
    os.kill(pinned, signal.SIGKILL)
    (second,) = house.results(house.send(house.images(1, model="tiny", width=64)), 180)

    assert (first["kind"], second["kind"]) == ("generated", "generated")
    assert children_of(node.pid) != [pinned]
