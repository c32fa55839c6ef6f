"""A node that runs diffusers, through the whole system, on tiny models."""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.acceptance.stack import Stack, stack
from tests.services import RedisServer, missing


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    absent = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if absent:
        missing(f"no {', '.join(absent)}: the extra `gpu` is not installed")
    from tests.acceptance.tiny_catalog import write_catalog

    return write_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def running(
    catalog: Path, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with stack(
        tmp_path_factory.mktemp("stack-diffusers"),
        FANFARE_BROKER_URL=shared_redis.new_url(),
        FANFARE_NODE_ENGINES="diffusers",
        FANFARE_NODE_DEVICES="cpu",
        FANFARE_NODE_CATALOG=str(catalog),
        FANFARE_DEFAULT_MODEL="tiny-sdxl",
        FANFARE_SWEEP_INTERVAL_S="1",
        OMP_NUM_THREADS="1",
    ) as made:
        made.start_all()
        yield made


def submit(running: Stack, model: str, **values: Any) -> str:
    return running.submit(model=model, width=values.pop("width", 64), height=64, **values)


def pixels(image: dict[str, Any]) -> bytes:
    return Image.open(io.BytesIO(httpx.get(image["url"]).raise_for_status().content)).tobytes()


FIVE = ("tiny-sdxl", "tiny-sd15", "tiny-flux", "tiny-sd3", "tiny-z-image")


def test_five_families_through_the_api_in_one_run(running: Stack) -> None:
    jobs = {model: submit(running, model, count=2, seed=3) for model in FIVE}

    for model, task_id in jobs.items():
        job = running.ended(task_id, within_s=60)
        assert job["status"] == "completed", job
        for image in job["images"]:
            made_with = image["made_with"]
            assert made_with["family"] == model.removeprefix("tiny-")
            assert {"revision", "steps", "guidance", "scheduler", "dtype", "torch_version"} <= set(made_with)
            assert {"load_ms", "encode_ms", "denoise_ms", "decode_ms", "upload_ms"} <= set(image["timings"])
            assert image["thumbnails"]


def test_the_same_seed_is_the_same_image_whatever_runs_beside_it(running: Stack) -> None:
    alone = running.ended(submit(running, "tiny-sdxl", count=1, seed=5, reproducible=True, message="a door"))
    others = [submit(running, "tiny-sdxl", count=6, seed=seed) for seed in (5, 6)]
    crowded = running.ended(
        submit(running, "tiny-sdxl", count=1, seed=5, reproducible=True, message="a door")
    )
    for task_id in others:
        running.ended(task_id)

    (one,), (two,) = alone["images"], crowded["images"]
    assert one["prompt"] == two["prompt"]
    assert pixels(one) == pixels(two)


def test_four_jobs_of_different_shapes_and_models_take_turns(running: Stack) -> None:
    begun = [
        submit(running, "tiny-sdxl", count=12, steps=60),
        submit(running, "tiny-sdxl", count=2, width=128),
        submit(running, "tiny-flux", count=2),
        submit(running, "tiny-sd3", count=2),
    ]

    jobs = [running.ended(task_id, within_s=60) for task_id in begun]

    assert [job["status"] for job in jobs] == ["completed"] * 4
    large, *small = [job["completed_at"] for job in jobs]
    assert all(end < large for end in small)  # nobody waits for the large one's end
