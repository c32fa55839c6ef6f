"""A node that runs diffusers, through the whole system, on tiny models."""

import base64
import importlib.util
import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageStat

from tests.acceptance.stack import Stack, stack
from tests.backend.images.samples import encode, png, quarters
from tests.services import RedisServer, missing

LONG: dict[str, Any] = {"width": 128, "height": 128, "steps": 90}  # a second or two
FIVE = ("tiny-sdxl", "tiny-sd15", "tiny-flux", "tiny-sd3", "tiny-z-image")
STRICT: dict[str, Any] = {"message": "a door", "count": 1, "seed": 5, "reproducible": True}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    absent = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if absent:
        missing(f"no {', '.join(absent)}: the extra `gpu` is not installed")
    from tests.acceptance import odd_models
    from tests.acceptance.tiny_catalog import write_catalog

    folder = tmp_path_factory.mktemp("catalog")
    written = write_catalog(folder, odd_models.TABLES)
    odd_models.build_odd(folder)
    return written


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


@pytest.fixture(scope="module", autouse=True)
def first(running: Stack) -> dict[str, Any]:
    """The first image of a fresh node; all others are made after it."""
    return one_image(running, **STRICT)


def submit(running: Stack, model: str = "tiny-sdxl", **values: Any) -> str:
    return running.submit(**({"model": model, "width": 64, "height": 64} | values))


def completed(running: Stack, model: str = "tiny-sdxl", **values: Any) -> list[dict[str, Any]]:
    job = running.ended(submit(running, model, **values))
    assert job["status"] == "completed", job
    images: list[dict[str, Any]] = job["images"]
    return images


def one_image(running: Stack, model: str = "tiny-sdxl", **values: Any) -> dict[str, Any]:
    (image,) = completed(running, model, **({"count": 1, "seed": 7} | values))
    return image


def error_of(running: Stack, model: str = "tiny-sdxl", **values: Any) -> dict[str, Any]:
    job = running.ended(submit(running, model, **({"count": 1} | values)))
    assert job["status"] == "failed", job
    error: dict[str, Any] = job["error"]
    return error


def refused(running: Stack, **values: Any) -> dict[str, str]:
    """What a 422 says of each field."""
    given = {"message": "a door", "model": "tiny-sdxl", "width": 64, "height": 64}
    answer = httpx.post(f"{running.url}/v1/thumbnails", json=given | values, timeout=30)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def content(image: dict[str, Any]) -> bytes:
    return httpx.get(image["url"]).raise_for_status().content


def opened(image: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(content(image)))


def pixels(image: dict[str, Any]) -> bytes:
    return opened(image).tobytes()


def data_uri(image: Image.Image | bytes) -> str:
    data = image if isinstance(image, bytes) else encode(image)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def workers(running: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{running.url}/v1/workers").json()["results"]
    return found


def models(running: Stack) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in httpx.get(f"{running.url}/v1/models").json()["results"]}


def in_work(running: Stack, task_id: str) -> None:
    """Returns when steps of the job are being made."""
    running.until(lambda: running.job(task_id)["progress"]["fraction"] > 0)


# -- many models, many jobs --------------------------------------------------------------------------------


def test_five_families_through_the_api_in_one_run(running: Stack) -> None:
    jobs = {model: submit(running, model, count=2, seed=3) for model in FIVE}

    for model, task_id in jobs.items():
        job = running.ended(task_id)
        assert job["status"] == "completed", job
        for image in job["images"]:
            made_with = image["made_with"]
            assert made_with["family"] == model.removeprefix("tiny-")
            assert {"revision", "steps", "guidance", "scheduler", "dtype", "torch_version"} <= set(made_with)
            assert {"load_ms", "encode_ms", "denoise_ms", "decode_ms", "upload_ms"} <= set(image["timings"])
            assert image["thumbnails"]


def test_the_same_seed_is_the_same_image_whatever_runs_beside_it(
    running: Stack, first: dict[str, Any]
) -> None:
    others = [submit(running, count=6, seed=seed) for seed in (5, 6)]
    crowded = one_image(running, **STRICT)
    for task_id in others:
        running.ended(task_id)

    assert first["prompt"] == crowded["prompt"]
    assert pixels(first) == pixels(crowded)


def test_four_jobs_of_different_shapes_and_models_take_turns(running: Stack) -> None:
    # Given a job that would keep the node busy for much longer than models change places
    large = submit(running, count=100, steps=100)
    # When three small ones come
    small = [
        submit(running, count=2, width=128),
        submit(running, "tiny-flux", count=2),
        submit(running, "tiny-sd3", count=2),
    ]
    # Then nobody waits for the large one's end
    assert [running.ended(task_id)["status"] for task_id in small] == ["completed"] * 3
    assert running.job(large)["status"] == "in_progress"
    assert httpx.post(f"{running.url}/v1/jobs/{large}/cancel").status_code == 200


def test_images_of_one_job_share_batches(running: Stack) -> None:
    sizes = Counter(image["made_with"]["batch"] for image in completed(running, count=8))
    assert sizes[4] >= 4, sizes  # the first may have come before the others


def test_images_of_two_jobs_share_a_batch(running: Stack) -> None:
    # Given a node that is at work on something else
    other = submit(running, count=4, **LONG)
    in_work(running, other)
    # When two jobs come that ask for the same
    jobs = [submit(running, "tiny-sdxl", count=2, seed=seed) for seed in (1, 2)]
    # Then they are made together
    ended = [running.ended(task_id) for task_id in jobs]
    assert [image["made_with"]["batch"] for job in ended for image in job["images"]] == [4] * 4
    running.ended(other)


# -- from a picture ----------------------------------------------------------------------------------------


def test_image_to_image_follows_its_strength(running: Stack) -> None:
    reference = {"url": data_uri(quarters(64, 64))}
    weak, strong = (
        one_image(running, reference=reference, strength=strength, steps=10, output_format="png")
        for strength in (0.1, 1.0)
    )

    assert [one["made_with"]["task"] for one in (weak, strong)] == ["image-to-image"] * 2
    assert [one["made_with"]["strength"] for one in (weak, strong)] == [0.1, 1.0]
    assert pixels(weak) != pixels(strong)


@pytest.mark.parametrize("model", FIVE)
def test_every_family_starts_from_an_earlier_image(running: Stack, first: dict[str, Any], model: str) -> None:
    reference = {"image_id": first["id"]}
    image = one_image(running, model, reference=reference)
    assert image["made_with"]["task"] == "image-to-image"
    assert pixels(image) != pixels(one_image(running, model))


@pytest.mark.parametrize("model", FIVE)
def test_inpainting_keeps_what_is_black(running: Stack, model: str) -> None:
    picture = quarters(64, 64)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    asked = {"reference": {"url": data_uri(picture)}, "mask": {"url": data_uri(mask)}}
    image = one_image(running, model, **asked, strength=1.0, output_format="png")

    made = opened(image).convert("RGB")
    assert image["made_with"]["task"] == "inpainting"
    left, right = (0, 0, 32, 64), (32, 0, 64, 64)
    assert made.crop(left).tobytes() == picture.crop(left).tobytes()
    assert made.crop(right).tobytes() != picture.crop(right).tobytes()


def test_what_is_no_picture_is_refused(running: Stack) -> None:
    bomb = png(30_000, 30_000, data=b"x")
    whole = encode(Image.effect_noise((64, 64), 80))
    for bad in (bomb, b"%!PS-Adobe-3.0", whole[:20], whole[: len(whole) // 2]):
        assert set(refused(running, reference={"url": data_uri(bad)})) == {"#/reference/url"}
    broken = png(64, 64, data=b"x")  # all but its pixels is good
    error = error_of(running, reference={"url": data_uri(broken)})
    assert (error["code"], error["retryable"]) == ("reference_refused", False)


# -- LoRAs and schedulers ----------------------------------------------------------------------------------


def test_a_lora_of_the_family_changes_the_image(running: Stack) -> None:
    bare = one_image(running, reproducible=True)
    full = one_image(running, reproducible=True, loras=[{"name": "right", "weight": 1.0}])
    usual = one_image(running, reproducible=True, loras=[{"name": "right"}])
    again = one_image(running, reproducible=True)

    assert "loras" not in bare["made_with"]
    assert [one["made_with"]["loras"] for one in (full, usual)] == ["right:1", "right:0.7"]
    assert full["made_with"]["lora_revisions"].startswith("right:")
    assert len({pixels(one) for one in (bare, full, usual)}) == 3
    assert pixels(again) == pixels(bare)


@pytest.mark.parametrize("name", ["foreign", "pickled"])
def test_a_lora_that_cannot_be_used_is_refused(running: Stack, name: str) -> None:
    error = error_of(running, loras=[{"name": name}])
    assert (error["code"], error["retryable"]) == ("lora_not_usable", False)
    one_image(running)


def test_what_is_not_known_is_answered_with_what_is(running: Stack) -> None:
    (detail,) = refused(running, scheduler="magic").values()
    assert "euler" in detail
    assert refused(running, loras=[{"name": "nobody"}]) == {
        "#/loras/0/name": "unknown LoRA; known for tiny-sdxl are: foreign, pickled, right"
    }
    assert set(refused(running, model="nobody")) == {"#/model"}


def test_schedulers_by_name(running: Stack) -> None:
    names = models(running)["tiny-sdxl"]["schedulers"]
    jobs = {name: submit(running, count=1, seed=7, scheduler=name) for name in names}
    for name, task_id in jobs.items():
        job = running.ended(task_id)
        assert job["status"] == "completed", (name, job)
        assert job["images"][0]["made_with"]["scheduler"] == name


# -- models that are not served ----------------------------------------------------------------------------


def test_models_that_could_run_code_are_refused_and_the_good_go_on(running: Stack) -> None:
    jobs = {name: submit(running, name, count=2) for name in ("pickled", "custom-code", "broken")}
    good = [submit(running, model, count=2) for model in FIVE]

    for task_id in jobs.values():
        job = running.ended(task_id)
        assert (job["status"], job["error"]["code"]) == ("failed", "model_not_usable"), job
        assert not job["error"]["retryable"]
    assert {running.ended(task_id)["status"] for task_id in good} == {"completed"}


def test_a_model_whose_files_are_gone_says_so(running: Stack, catalog: Path) -> None:
    shutil.rmtree(catalog.parent / "models" / "gone")
    error = error_of(running, "gone", count=2)
    assert (error["code"], error["retryable"]) == ("model_not_available", True)


# -- while it runs -----------------------------------------------------------------------------------------


def events(running: Stack, task_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The stream of a job, read while it runs."""
    found: list[tuple[str, dict[str, Any]]] = []
    with httpx.stream("GET", f"{running.url}/v1/jobs/{task_id}/events", timeout=60) as stream:
        name = ""
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                found.append((name, json.loads(value)))
    return found


def test_previews_for_those_who_ask(running: Stack) -> None:
    asked, quiet = (submit(running, count=4, preview=wanted, **LONG) for wanted in (True, False))

    previews = [data for name, data in events(running, asked) if name == "preview"]

    assert previews
    assert {one["index"] for one in previews} == {0, 1, 2, 3}
    ids = {image["index"]: image["id"] for image in running.job(asked)["images"]}
    for one in previews:
        assert (one["content_type"], one["image_id"]) == ("image/jpeg", ids[one["index"]])
        picture = Image.open(io.BytesIO(base64.b64decode(one["data"])))
        assert picture.format == "JPEG"
        assert picture.width == picture.height
    assert len({one["data"] for one in previews if one["index"] == 0}) > 1  # they change
    assert not [data for name, data in events(running, quiet) if name == "preview"]


def test_what_the_node_says_of_itself(running: Stack, first: dict[str, Any]) -> None:
    card = models(running)["tiny-sdxl"]
    assert (card["engine"], card["family"], card["workers"], card["default"]) == (
        "diffusers",
        "sdxl",
        1,
        True,
    )
    assert card["revision"] == first["made_with"]["revision"]
    assert {"euler", "ddim"} <= set(card["schedulers"])
    assert card["loras"][0] == {
        "name": "right",
        "description": "Another hand. Trigger words: handmade.",
        "default_weight": 0.7,
        "license": None,
    }
    assert card["tasks"] == ["text-to-image", "image-to-image", "inpainting"]

    # While it is at work, it says on what
    running.until(lambda: workers(running)[0]["running"] == 0)
    task_id = submit(running, count=16, **LONG)  # longer than it takes from one announcement to the next
    running.until(lambda: (workers(running)[0]["doing"] or "").startswith("tiny-sdxl: 4 images 128x128"))
    (worker,) = workers(running)
    assert worker["device"]["kind"] == "cpu"
    assert "tiny-sdxl" in worker["loaded"]
    assert 4 <= worker["running"] <= 16
    assert models(running)["tiny-sdxl"]["loaded"] == 1
    httpx.post(f"{running.url}/v1/jobs/{task_id}/cancel").raise_for_status()
    running.until(lambda: workers(running)[0]["running"] == 0)
    assert workers(running)[0]["doing"] is None


def test_cancel_frees_the_device_at_once(running: Stack, first: dict[str, Any]) -> None:
    # Given a long batch amid its steps, with many behind it
    task_id = submit(running, count=100, **LONG)
    in_work(running, task_id)
    # When it is canceled
    answer = httpx.post(f"{running.url}/v1/jobs/{task_id}/cancel")
    begun = time.monotonic()
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    # Then the next one is served at once, and is as on a fresh node
    image = one_image(running, **STRICT)
    took = time.monotonic() - begun
    assert content(image) == content(first)
    assert took < 15, took  # the others would take twice that, or more
    assert image["timings"]["queued_ms"] < 10_000
    job = running.job(task_id)
    assert {one["status"] for one in job["images"]} == {"canceled"}


# -- how it was made ---------------------------------------------------------------------------------------


def reproduced(running: Stack, image: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{running.url}/v1/reproductions", json={"image_id": image["id"]})
    assert answer.status_code == 202, answer.text
    job = running.ended(answer.json()["task_id"])
    assert job["status"] == "completed", job
    (again,) = job["images"]
    return dict(again)


def test_an_image_made_again_is_the_same(running: Stack) -> None:
    original = one_image(
        running, reproducible=True, scheduler="ddim", loras=[{"name": "right"}], negative_prompt="fog"
    )
    again = reproduced(running, original)
    assert again["reproduces"]["identical"] is True
    assert content(again) == content(original)


def test_an_image_that_started_from_another_is_made_again_from_the_same(
    running: Stack, first: dict[str, Any]
) -> None:
    mask = data_uri(Image.linear_gradient("L").resize((64, 64)))
    original = one_image(
        running, reproducible=True, reference={"image_id": first["id"]}, mask={"url": mask}, strength=0.8
    )
    again = reproduced(running, original)
    assert again["made_with"] == original["made_with"]
    assert again["reproduces"]["identical"] is True


def test_all_of_a_job_is_bit_for_bit_the_same_again(running: Stack) -> None:
    """Also schedulers that draw noise in each step, and several at once."""
    asked: dict[str, Any] = {"count": 5, "seed": 11, "reproducible": True, "scheduler": "euler-a"}
    one, two = (completed(running, **asked) for _ in range(2))
    assert [image["sha256"] for image in one] == [image["sha256"] for image in two]
    assert len({image["sha256"] for image in one}) == 5


def test_an_image_that_was_made_among_others_tells_honestly(running: Stack) -> None:
    original = completed(running, count=4)[2]
    again = reproduced(running, original)
    assert again["reproduces"]["identical"] is (content(again) == content(original))
    assert again["prompt"] == original["prompt"]


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_the_file_says_how_it_was_made(running: Stack, output_format: str) -> None:
    image = one_image(
        running,
        output_format=output_format,
        scheduler="euler",
        loras=[{"name": "right"}],
        steps=6,
        guidance=4,
    )
    picture = opened(image)
    text = (
        picture.info["parameters"]
        if output_format == "png"
        else picture.getexif().get_ifd(0x8769)[0x9286][8:].decode("utf-16-be")
    )
    facts = text.splitlines()[-1]
    assert text.startswith(image["prompt"])
    revision = image["made_with"]["revision"]
    for fact in (
        "Steps: 6", "CFG scale: 4", "Seed: ", "Size: 64x64", "Model: tiny-sdxl", f"Revision: {revision}",
        "Scheduler: euler", "Loras: right:0.7", "Dtype: float32", "Device: ", "Torch version: ",
        "Diffusers version: ", "Version: Fanfare ",
    ):  # fmt: skip
        assert fact in facts, facts
    if output_format == "png":
        assert json.loads(picture.info["made_with"]) == image["made_with"]


def test_pictures_are_no_plain_colour(running: Stack) -> None:
    for image in [one_image(running, model, width=128, output_format="png") for model in FIVE]:
        picture = opened(image).convert("RGB")
        assert picture.size == (128, 64)
        assert min(ImageStat.Stat(picture).stddev) > 5


# -- safety ------------------------------------------------------------------------------------------------


def test_what_a_classifier_holds_for_unsafe(running: Stack) -> None:
    bare = one_image(running, "tiny-sd15", output_format="png")
    flagged = one_image(running, "safety-flag", output_format="png")
    blurred = one_image(running, "safety-blur", output_format="png")

    assert pixels(flagged) == pixels(bare)
    assert "safety" not in bare["made_with"]
    assert flagged["made_with"]["safety"].startswith("flagged")
    assert blurred["made_with"]["safety"].startswith("blurred")
    assert sum(ImageStat.Stat(opened(blurred)).stddev) < sum(ImageStat.Stat(opened(bare)).stddev)
    error = error_of(running, "safety-refuse")
    assert (error["code"], error["retryable"]) == ("content_refused", False)
