"""The sketch engine: the same words give the same picture, other words another, and it keeps its port."""

import colorsys
import hashlib
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.messages import FailureCode
from gpu_worker.engines.base import Engine, Failure, ImageRequest, Picture
from gpu_worker.engines.sketch import SketchEngine
from gpu_worker.engines.sketch.canvas import Canvas
from gpu_worker.engines.sketch.dice import Dice
from gpu_worker.engines.sketch.finish import MEDIUMS, finish
from gpu_worker.engines.sketch.reading import read
from gpu_worker.engines.sketch.scenes import SCENES
from gpu_worker.engines.sketch.scenes.view import View
from tests.gpu_worker.engines.watching import Recorder

ROOT = Path(__file__).parents[3]
STORM = "a lighthouse keeper's library in a storm, golden hour light, teal and amber palette, gouache"
ENGINE = SketchEngine()


def request(
    prompt: str = STORM, *, seed: int = 1, width: int = 160, height: int = 120, title: str | None = None
) -> ImageRequest:
    return ImageRequest("one", "sketch", prompt, width, height, seed, title=title)


def paint(asked: ImageRequest) -> Picture:
    (outcome,) = ENGINE.generate([asked], Recorder())
    assert isinstance(outcome, Picture)
    return outcome


def pixels(picture: Picture | Image.Image) -> NDArray[np.float64]:
    image = picture.image if isinstance(picture, Picture) else picture
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_keeps_the_port() -> None:
    engine: Engine = ENGINE

    (card,) = engine.models()

    assert card.name == "sketch"
    assert card.can_set_title
    assert (card.min_size, card.max_size, card.size_multiple) == (64, 2048, 8)
    assert engine.state().loaded == ("sketch",)
    assert engine.device.kind == "cpu"
    assert engine.batch_key(request(seed=1)) == engine.batch_key(request("other", seed=2))
    assert engine.batch_key(request()) != engine.batch_key(request(width=168))
    assert engine.max_batch(engine.batch_key(request())) == 1


def test_the_same_request_gives_the_same_bytes() -> None:
    first, second = paint(request(title="Storm")), paint(request(title="Storm"))

    assert first.image.tobytes() == second.image.tobytes()
    assert first.made_with == second.made_with


def test_another_process_with_other_hashes_paints_the_same() -> None:
    program = (
        "import hashlib; from tests.gpu_worker.engines.test_sketch import paint, request;"
        "print(hashlib.sha256(paint(request(title='Storm')).image.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == hashlib.sha256(paint(request(title="Storm")).image.tobytes()).hexdigest()


@pytest.mark.parametrize("prompt", [STORM, "abstract", "portrait of a woman", "десять советов", "山と海"])
def test_other_seeds_give_other_pictures(prompt: str) -> None:
    pictures = [pixels(paint(request(prompt, seed=seed))) for seed in range(4)]

    differences = [np.abs(a - b).mean() for a, b in combinations(pictures, 2)]

    assert min(differences) > 6  # of 255, on average over all pixels


def test_other_prompts_give_other_pictures() -> None:
    prompts = ("a quiet harbour", "a quiet harbor", "тихая гавань", "静かな港", "", "🚀")

    pictures = [pixels(paint(request(prompt))) for prompt in prompts]

    assert min(np.abs(a - b).mean() for a, b in combinations(pictures, 2)) > 6


def test_the_words_choose_the_scene() -> None:
    said = {
        "a mountain valley": "mountains",
        "harbour with fishing boats": "sea",
        "skyline of a metropolis": "city",
        "camels crossing the dunes": "desert",
        "a spiral galaxy": "cosmos",
        "bauhaus poster": "poster",
        "bowl of fruit": "still_life",
        "пустыня": "desert",
        "静かな森": "forest",
    }

    assert {
        prompt: paint(request(prompt, width=64, height=64)).made_with["composition"] for prompt in said
    } == said


@pytest.mark.parametrize(
    ("word", "hue"),
    [("teal", 180), ("crimson", 350), ("amber", 38), ("emerald", 150), ("violet", 270), ("cobalt", 222)],
)
@pytest.mark.parametrize("scene", ["a mountain valley", "abstract gradient", "the sea"])
def test_the_colour_that_was_asked_for_is_the_colour_that_is_seen(word: str, hue: float, scene: str) -> None:
    for seed in range(3):
        seen = mean_hue(paint(request(f"{scene}, {word} palette", seed=seed)).image)

        assert abs((seen - hue + 180) % 360 - 180) < 40, (seed, seen)


def mean_hue(image: Image.Image) -> float:
    """Degrees; each pixel counts as much as it is coloured."""
    across = down = 0.0
    for r, g, b in pixels(image.resize((24, 24))).reshape(-1, 3) / 255:
        hue, _, _ = colorsys.rgb_to_hsv(r, g, b)
        chroma = max(r, g, b) - min(r, g, b)
        across += chroma * math.cos(hue * 2 * math.pi)
        down += chroma * math.sin(hue * 2 * math.pi)
    return math.degrees(math.atan2(down, across)) % 360


def test_night_is_darker_than_noon() -> None:
    for place in ("the sea", "a mountain valley", "city skyline"):
        noon, night = (
            pixels(paint(request(f"{place} at {time_}", seed=3))).mean() for time_ in ("noon", "night")
        )

        assert night < noon - 60


@pytest.mark.parametrize(("width", "height"), [(64, 64), (2048, 64), (64, 2048), (72, 344), (640, 320)])
def test_every_size_is_exactly_that_size(width: int, height: int) -> None:
    picture = paint(request(width=width, height=height, title="On the edge"))

    assert picture.image.size == (width, height)
    assert picture.image.mode == "RGB"
    assert pixels(picture).std() > 8  # not a grey box


@pytest.mark.parametrize("scene", sorted(SCENES))
@pytest.mark.parametrize("size", [(64, 64), (384, 64), (64, 384)])
def test_every_scene_paints_every_shape(scene: str, size: tuple[int, int]) -> None:
    for seed in range(2):
        view = staged(scene, seed, size)

        shares = list(SCENES[scene](view))

        assert shares[-1] == 1.0
        assert all(before <= after for before, after in pairwise(shares))
        assert np.isfinite(view.canvas.rgb).all()
        assert pixels(view.canvas.image()).std() > 5


@pytest.mark.parametrize("medium", sorted(MEDIUMS))
@pytest.mark.parametrize("size", [(64, 64), (328, 64), (64, 328)])
def test_every_medium_finishes_every_shape(medium: str, size: tuple[int, int]) -> None:
    view = staged("mountains", 1, size)
    for _ in SCENES["mountains"](view):
        pass
    before = pixels(view.canvas.image())

    finish(View(view.canvas, replace(view.brief, medium=medium), view.dice))

    assert np.abs(pixels(view.canvas.image()) - before).mean() > 0.5
    assert (
        pixels(view.canvas.image())[:, -1].sum(axis=-1) > 0
    ).any()  # nothing fetched from outside the edge


def staged(scene: str, seed: int, size: tuple[int, int]) -> View:
    dice = Dice(scene, seed)
    return View(
        Canvas(*size), replace(read("birds, boat, figure, rain, fog, fireflies", dice), scene=scene), dice
    )


@pytest.mark.parametrize(
    "bad",
    [
        replace(request(), model="sdxl"),
        request(width=56),
        request(height=2056),
        request(width=100),
    ],
)
def test_what_it_cannot_do_is_refused(bad: ImageRequest) -> None:
    (outcome,) = ENGINE.generate([bad], Recorder())

    assert isinstance(outcome, Failure)
    assert outcome.code is FailureCode.INVALID_REQUEST
    assert not outcome.retryable


@pytest.mark.parametrize(
    "prompt", ["", " ", "\x00\x07", "\ud800", "a" * 20_000, "🧑‍🚀" * 300, "(((" * 50, "\u202e" * 9]
)
def test_any_prompt_makes_a_picture(prompt: str) -> None:
    assert paint(request(prompt, width=64, height=64)).image.size == (64, 64)


def test_what_it_has_no_use_for_is_ignored() -> None:
    plain = paint(request())

    busy = paint(replace(request(), negative_prompt="teal", steps=3, guidance=9.0))

    assert busy.image.tobytes() == plain.image.tobytes()


def test_progress_rises_in_steps_to_the_end() -> None:
    watch = Recorder()

    ENGINE.generate([request()], watch)

    seen = watch.seen["one"]
    assert len(seen) >= 5
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("patience", [0, 1, 4])
def test_a_canceled_image_is_dropped_and_its_neighbours_are_not_touched(patience: int) -> None:
    first, dropped, last = (replace(request(seed=seed), id=str(seed)) for seed in (1, 2, 3))

    outcomes = ENGINE.generate([first, dropped, last], Recorder(unwanted="2", patience=patience))

    assert outcomes[1] == Failure(FailureCode.CANCELED, "The image was canceled.", retryable=False)
    for alone, outcome in ((first, outcomes[0]), (last, outcomes[2])):
        assert isinstance(outcome, Picture)
        assert outcome.image.tobytes() == paint(alone).image.tobytes()


def test_a_refused_image_does_not_touch_its_neighbour() -> None:
    refused, made = ENGINE.generate([request(width=100), request()], Recorder())

    assert isinstance(refused, Failure)
    assert isinstance(made, Picture)


def test_the_delay_is_spent_and_a_cancel_ends_it() -> None:
    slow = SketchEngine(delay_s=0.3)
    started = time.monotonic()

    slow.generate([request(width=64, height=64)], Recorder())

    assert time.monotonic() - started >= 0.3
    endless, started = SketchEngine(delay_s=600), time.monotonic()
    (outcome,) = endless.generate([request(width=64, height=64)], Recorder(unwanted="one", patience=5))
    assert isinstance(outcome, Failure)
    assert time.monotonic() - started < 60


def test_says_what_it_was_made_with() -> None:
    made_with = paint(request()).made_with

    assert made_with["engine"] == "sketch"
    assert made_with["palette"] == "teal and amber"
    assert made_with["light"] == "golden"
    assert made_with["medium"] == "paint"
    assert made_with["composition"] in ("sea", "interior")
    assert "title" not in made_with
