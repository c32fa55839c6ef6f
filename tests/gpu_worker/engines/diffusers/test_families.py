"""Every family's adapter makes what the plain pipeline makes, and leaves nothing behind.

The plain pipeline is loaded from the same folder and called as its documentation says.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from contract.messages import Task
from gpu_worker.engines.diffusers.families import FAMILIES, load
from gpu_worker.engines.diffusers.families.base import Embeddings, FamilyAdapter, Row, Run
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS
from tests.gpu_worker.engines.diffusers.conftest import TinyModels

SIZE = 64
STEPS = 4
FOX, SEA = "a red fox in the snow", "the sea at night, with a very long pier and a hundred small lamps on it"
TASKS: tuple[Task, ...] = ("text-to-image", "image-to-image", "inpainting")
CASES = [
    (family, task) for family, facts in FAMILY_FACTS.items() for task in TASKS if task in facts.pipelines
]
GUIDED, UNGUIDED = 4.5, 0.0
PLAIN_GUIDANCE = {"qwen-image": "true_cfg_scale"}  # for all others: guidance_scale


@pytest.fixture(autouse=True)
def as_the_engine_calls() -> Iterator[None]:
    with torch.inference_mode():
        yield


@functools.cache
def loaded(folder: Path, family: str) -> FamilyAdapter:
    """One for all tests: no run leaves anything behind."""
    return load(folder, family, dtype=torch.float32)


@pytest.fixture
def adapters(tiny_models: TinyModels) -> Callable[[str], FamilyAdapter]:
    return lambda family: loaded(tiny_models[family], family)


def gradient(shade: int) -> Image.Image:
    across, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    levels = np.stack([across * 4, down * 4, np.full_like(across, shade)], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def left_half() -> Image.Image:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (0, 0, SIZE // 2, SIZE))
    return mask


@dataclass
class Steps:
    """What `on_step` was told."""

    seen: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, step: int, of: int, latents: torch.Tensor) -> None:
        assert torch.isfinite(latents).all()
        self.seen.append((step, of))


def a_run(task: Task, guidance: float = UNGUIDED, **changes: Any) -> Run:
    strength = None if task == "text-to-image" else 0.8
    return replace(Run(task, SIZE, SIZE, STEPS, guidance, strength), **changes)


def a_row(
    adapter: FamilyAdapter, run: Run, prompt: str = FOX, seed: int = 1, negative: str | None = None
) -> Row:
    cfg = adapter.uses_cfg(run.guidance)
    generator = torch.Generator().manual_seed(seed)
    return with_pictures(run.task, adapter.encode(prompt, negative, cfg=cfg), generator)


def with_pictures(task: Task, embeddings: Embeddings, generator: torch.Generator) -> Row:
    reference = None if task == "text-to-image" else gradient(90)
    return Row(embeddings, generator, reference, left_half() if task == "inpainting" else None)


def pixels(adapter: FamilyAdapter, run: Run, rows: Sequence[Row]) -> NDArray[np.int16]:
    made = adapter.decode(adapter.denoise(run, rows, Steps()), run)
    assert made.dtype == torch.uint8
    return made.numpy().astype(np.int16)


def plain_pipeline(folder: Path, family: str, task: Task) -> Any:
    kind = getattr(diffusers, FAMILY_FACTS[family].pipelines[task])
    pipe = kind.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plainly(folder: Path, family: str, run: Run, negative: str | None) -> NDArray[np.int16]:
    pipe = plain_pipeline(folder, family, run.task)
    call: dict[str, Any] = {PLAIN_GUIDANCE.get(family, "guidance_scale"): run.guidance}
    if run.task != "text-to-image":
        call |= {"image": gradient(90), "strength": run.strength}
    if run.task == "inpainting":
        call |= {"mask_image": left_half()}
    if run.task == "text-to-image" or family not in {"sd15", "sdxl"}:
        call |= {"height": SIZE, "width": SIZE}
    if family == "sana":
        call |= {"use_resolution_binning": False}
    if negative is not None:
        call |= {"negative_prompt": negative}
    generator = torch.Generator().manual_seed(1)
    forgets = family == "sd3" and run.task == "inpainting"  # the shift, when it decodes
    output = "latent" if forgets else "np"
    made = pipe(FOX, num_inference_steps=STEPS, generator=generator, output_type=output, **call).images
    if forgets:
        config = pipe.vae.config
        made = pipe.vae.decode(made / config.scaling_factor + config.shift_factor, return_dict=False)[0]
        made = pipe.image_processor.postprocess(made, output_type="np")
    levels: NDArray[np.int16] = (made * 255).round().astype(np.int16)
    return levels


def asked() -> Iterator[tuple[str, Task, float, str | None]]:
    """What is compared with the plain pipelines."""
    for family, task in CASES:
        yield family, task, UNGUIDED, None
        yield family, task, GUIDED, None
        if FAMILY_FACTS[family].can_negative_prompt:
            yield family, task, GUIDED, "blue"


@pytest.mark.parametrize(("family", "task", "guidance", "negative"), list(asked()))
def test_makes_what_the_plain_pipeline_makes(
    adapters: Callable[[str], FamilyAdapter],
    tiny_models: TinyModels,
    family: str,
    task: Task,
    guidance: float,
    negative: str | None,
) -> None:
    adapter, run = adapters(family), a_run(task, guidance)
    # Qwen-Image's pipeline leaves guidance out, unless it is given a negative prompt
    said = " " if family == "qwen-image" and negative is None and guidance == GUIDED else negative

    ours = pixels(adapter, run, [a_row(adapter, run, negative=negative)])

    assert ours.shape == (1, SIZE, SIZE, 3)
    assert abs(ours - plainly(tiny_models[family], family, run, said)).max() <= 1


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "flux"])
def test_a_negative_prompt_and_guidance_change_the_picture(
    adapters: Callable[[str], FamilyAdapter], family: str
) -> None:
    adapter = adapters(family)
    guided, unguided = a_run("text-to-image", GUIDED), a_run("text-to-image", UNGUIDED)

    plain = pixels(adapter, guided, [a_row(adapter, guided)])

    assert adapter.uses_cfg(GUIDED)
    assert not adapter.uses_cfg(UNGUIDED)
    assert abs(plain - pixels(adapter, guided, [a_row(adapter, guided, negative="blue water")])).max() > 1
    assert abs(plain - pixels(adapter, unguided, [a_row(adapter, unguided)])).max() > 1


@pytest.mark.parametrize(("family", "task"), CASES)
def test_neighbours_change_nothing(adapters: Callable[[str], FamilyAdapter], family: str, task: Task) -> None:
    adapter, run = adapters(family), a_run(task, GUIDED)

    def second_of_three(first: str, third: str, seed: int) -> NDArray[np.int16]:
        rows = [
            a_row(adapter, run, first, seed),
            a_row(adapter, run, FOX, 7, "blue"),
            a_row(adapter, run, third, seed + 1),
        ]
        second: NDArray[np.int16] = pixels(adapter, run, rows)[1]
        return second

    once, again = second_of_three(SEA[:21], SEA[21:42], 1), second_of_three(FOX, SEA[:20], 100)

    assert np.array_equal(once, again)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_any_length_share_a_batch(adapters: Callable[[str], FamilyAdapter], family: str) -> None:
    adapter, run = adapters(family), a_run("text-to-image", GUIDED)

    both = pixels(
        adapter, run, [a_row(adapter, run, FOX, 1), a_row(adapter, run, SEA, 2, "blue water everywhere")]
    )

    alone = pixels(adapter, run, [a_row(adapter, run, FOX, 1)])
    assert abs(both[:1] - alone).max() <= 1
    alone = pixels(adapter, run, [a_row(adapter, run, SEA, 2, "blue water everywhere")])
    assert abs(both[1:] - alone).max() <= 1


@pytest.mark.parametrize(("family", "task"), CASES)
def test_tells_each_step_that_is_made_in_fact(
    adapters: Callable[[str], FamilyAdapter], family: str, task: Task
) -> None:
    adapter, run, steps = (
        adapters(family),
        a_run(task, strength=0.5 if task != "text-to-image" else None),
        Steps(),
    )

    adapter.denoise(run, [a_row(adapter, run)], steps)

    total = steps.seen[0][1]
    assert steps.seen == [(step, total) for step in range(total)]
    assert total >= STEPS if task == "text-to-image" else total < STEPS


@pytest.mark.parametrize(("family", "task"), [case for case in CASES if case[1] != "text-to-image"])
def test_the_least_strength_still_makes_a_step(
    adapters: Callable[[str], FamilyAdapter], family: str, task: Task
) -> None:
    adapter, run, steps = adapters(family), a_run(task, strength=0.01), Steps()

    made = pixels(adapter, run, [a_row(adapter, run)])
    adapter.denoise(run, [a_row(adapter, run)], steps)

    assert made.shape == (1, SIZE, SIZE, 3)
    assert 1 <= len(steps.seen) <= 2  # PNDM and some flows make one more


class Enough(Exception):
    """The step after which a run is ended."""


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_run_that_is_ended_leaves_nothing_behind(
    adapters: Callable[[str], FamilyAdapter], tiny_models: TinyModels, family: str, task: Task
) -> None:
    adapter, run = adapters(family), a_run(task, GUIDED)
    fresh = load(tiny_models[family], family, dtype=torch.float32)
    expected = pixels(fresh, run, [a_row(fresh, run)])

    def end(step: int, of: int, latents: torch.Tensor) -> None:
        if step == 1:
            raise Enough

    other = replace(run, steps=7, width=2 * SIZE, guidance=UNGUIDED)
    with pytest.raises(Enough):
        adapter.denoise(other, [wide(a_row(adapter, other, SEA, 9))], end)

    assert np.array_equal(pixels(adapter, run, [a_row(adapter, run)]), expected)


def wide(row: Row) -> Row:
    """Of another run's size."""
    size = (2 * SIZE, SIZE)
    reference = row.reference.resize(size) if row.reference else None
    return replace(row, reference=reference, mask=row.mask.resize(size) if row.mask else None)


@pytest.mark.parametrize(("family", "task"), CASES)
def test_makes_pictures_in_bfloat16(tiny_models: TinyModels, family: str, task: Task) -> None:
    adapter, run = load(tiny_models[family], family, dtype=torch.bfloat16), a_run(task, GUIDED)

    made = pixels(adapter, run, [a_row(adapter, run), a_row(adapter, run, SEA[:21], 2, "blue")])

    assert made.shape == (2, SIZE, SIZE, 3)
    assert made.std() > 5
    assert adapter.pipe.vae.dtype == adapter.denoiser().dtype == torch.bfloat16


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spatial_latents_are_a_small_picture(
    adapters: Callable[[str], FamilyAdapter], family: str
) -> None:
    adapter, run = adapters(family), a_run("text-to-image", width=2 * SIZE)
    factor = 32 if family == "sana" else 8

    latents = adapter.denoise(run, [a_row(adapter, run), a_row(adapter, run, seed=2)], Steps())
    spatial = adapter.spatial(latents, run)

    assert spatial.shape[0] == 2
    assert spatial.shape[2:] == (SIZE // factor, 2 * SIZE // factor)
    assert adapter.decode(latents, run).shape == (2, SIZE, 2 * SIZE, 3)


LONGEST = {"sd15": 75, "sdxl": 75, "sd3": 254, "flux": 510, "z-image": 470, "sana": 298, "qwen-image": 300}


@pytest.mark.parametrize("family", FAMILIES)
def test_says_when_a_prompt_is_not_read_to_its_end(
    adapters: Callable[[str], FamilyAdapter], family: str
) -> None:
    adapter = adapters(family)

    def truncated(characters: int) -> bool:
        return adapter.encode("x" * characters, None, cfg=False).truncated

    assert not truncated(LONGEST[family])
    assert truncated(LONGEST[family] + 250)
    if family in {"sd15", "sdxl"}:
        assert truncated(LONGEST[family] + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeps_the_port(adapters: Callable[[str], FamilyAdapter], family: str) -> None:
    adapter = adapters(family)
    facts = FAMILY_FACTS[family]

    assert (adapter.family, adapter.pipelines, adapter.size_multiple) == (
        family,
        facts.pipelines,
        facts.size_multiple,
    )
    assert facts.can_negative_prompt == adapter.uses_cfg(30.0)
    assert adapter.encode(FOX, None, cfg=False).bytes() > 0
    assert sum(parameter.numel() for parameter in adapter.denoiser().parameters()) > 1000


def test_every_family_that_the_catalog_knows_has_an_adapter() -> None:
    assert FAMILIES.keys() == FAMILY_FACTS.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_has_a_scheduler_of_its_own(adapters: Callable[[str], FamilyAdapter], family: str) -> None:
    adapter, run, seen = adapters(family), a_run("text-to-image"), []
    own = adapter.pipe.scheduler

    for _ in range(2):
        adapter.denoise(run, [a_row(adapter, run)], lambda *_: seen.append(adapter.pipe.scheduler))

    assert adapter.pipe.scheduler is own
    assert len({id(scheduler) for scheduler in [own, *seen]}) == 3


def test_an_error_amid_reading_a_picture_leaves_the_autoencoder_as_it_was(tiny_models: TinyModels) -> None:
    adapter, run = load(tiny_models["sdxl"], "sdxl", dtype=torch.bfloat16), a_run("image-to-image")
    no_generator: Any = "not a generator"

    with pytest.raises((TypeError, AttributeError)):
        adapter.denoise(run, [replace(a_row(adapter, run), generator=no_generator)], Steps())

    assert adapter.pipe.vae.dtype == torch.bfloat16
