"""Memory: an error for want of it is known, and what it holds is given back."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from diffusers import DiffusionPipeline

from gpu_worker.engines.diffusers import memory
from tests.gpu_worker.engines.diffusers.conftest import TinyModels

CPU = torch.device("cpu")
NOTHING_HAS_SO_MUCH = 1 << 60  # bytes


@pytest.mark.parametrize(
    "exc",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("HIP out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=str,
)
def test_is_known(exc: BaseException) -> None:
    assert memory.is_out_of_memory(exc)


def test_what_torch_really_raises_is_known() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(NOTHING_HAS_SO_MUCH, dtype=torch.uint8)
    assert memory.is_out_of_memory(told.value)


def test_is_known_when_something_else_was_made_of_it() -> None:
    def wrapped() -> None:
        try:
            torch.empty(NOTHING_HAS_SO_MUCH, dtype=torch.uint8)
        except RuntimeError as exc:
            raise ValueError("the batch failed") from exc

    with pytest.raises(ValueError, match="the batch failed") as told:
        wrapped()
    assert memory.is_out_of_memory(told.value)


@pytest.mark.parametrize(
    "exc",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_not_taken_for_it(exc: BaseException) -> None:
    assert not memory.is_out_of_memory(exc)


# -- clear -------------------------------------------------------------------------------------------


class Watched:
    """Knows whether the tensors that were made within are still there."""

    def __init__(self) -> None:
        self._tensors: list[weakref.ref[torch.Tensor]] = []

    def tensor(self) -> torch.Tensor:
        made = torch.zeros(8)
        self._tensors.append(weakref.ref(made))
        return made

    @property
    def alive(self) -> int:
        return sum(tensor() is not None for tensor in self._tensors)


def fails(watched: Watched) -> None:
    latents = watched.tensor()
    torch.empty(NOTHING_HAS_SO_MUCH, dtype=torch.uint8)
    latents.add_(1)


def fails_while_it_cleans_up(watched: Watched) -> None:
    hidden = watched.tensor()
    try:
        fails(watched)
    except RuntimeError:
        more = watched.tensor()
        raise KeyError(hidden.shape, more.shape)  # noqa: B904 - hangs on as __context__


def fails_from(watched: Watched) -> None:
    hidden = watched.tensor()
    try:
        fails(watched)
    except RuntimeError as exc:
        raise ValueError(str(hidden.shape)) from exc


def fails_in_a_circle(watched: Watched) -> None:
    """An object that keeps itself and a tensor alive, as hooks and caches do."""
    circle: dict[str, object] = {"tensor": watched.tensor()}
    circle["self"] = circle
    fails(watched)


def fails_in_a_group(watched: Watched) -> None:
    failures: list[Exception] = []
    for _ in range(2):
        try:
            fails(watched)
        except RuntimeError as exc:
            failures.append(exc)
    raise ExceptionGroup("both", failures)


@pytest.mark.parametrize(
    "fail", [fails, fails_while_it_cleans_up, fails_from, fails_in_a_circle, fails_in_a_group]
)
def test_what_the_error_held_is_given_back(fail: Callable[[Watched], None]) -> None:
    # Given an error that is kept, as a future keeps it, and with it the tensors of its frames
    watched = Watched()
    kept: Exception | None = None
    gc.disable()
    try:
        try:
            fail(watched)
        except Exception as exc:  # noqa: BLE001 - whichever it is
            kept = exc
        assert watched.alive > 0

        # When it is cleared
        memory.clear(kept, CPU)

        # Then none is left, though the error still is
        assert watched.alive == 0
        assert kept is not None
    finally:
        gc.enable()


def test_clearing_nothing_is_fine() -> None:
    memory.clear(None, CPU)


# -- how much there is ------------------------------------------------------------------------------


def test_tells_how_much_there_is() -> None:
    total, free, used = memory.total_bytes(CPU), memory.free_bytes(CPU), memory.used_bytes(CPU)

    if total is None:  # nothing but Linux tells
        assert free is None
        assert used is None
    else:
        assert free is not None
        assert used is not None
        assert 1 << 20 < used < total
        assert 0 < free < total


def test_sees_what_is_taken_and_what_is_given_back() -> None:
    before = memory.used_bytes(CPU)
    if before is None:
        pytest.skip("this system doesn't tell")
    size = 256 << 20

    taken = torch.ones(size, dtype=torch.uint8)
    during = memory.used_bytes(CPU)
    del taken
    memory.empty(CPU)
    after = memory.used_bytes(CPU)

    assert during is not None
    assert after is not None
    assert during - before > 0.9 * size
    assert during - after > 0.9 * size


# -- slower, but smaller ----------------------------------------------------------------------------


@pytest.fixture
def pipe(tiny_models: TinyModels) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(tiny_models["sd15"], local_files_only=True)


@torch.inference_mode()
def decoded(pipe: DiffusionPipeline, side: int, rows: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(rows, 4, side, side, generator=generator)
    pixels = pipe.vae.decode(latents, return_dict=False)[0]
    assert isinstance(pixels, torch.Tensor)
    return pixels


def test_tiles_change_pixels_only_while_they_are_on(pipe: DiffusionPipeline) -> None:
    whole = decoded(pipe, 16)

    with memory.tiled_vae(pipe) as tiles:
        in_tiles = decoded(pipe, 16)

    assert tiles
    assert memory.can_tile(pipe)
    assert not torch.equal(in_tiles, whole)
    assert torch.equal(decoded(pipe, 16), whole)


def test_slices_are_as_if_alone(pipe: DiffusionPipeline) -> None:
    with memory.sliced_vae(pipe) as slices:
        both = decoded(pipe, 8, rows=2)

    assert slices
    assert torch.equal(both[:1], decoded(pipe, 8))
    assert not pipe.vae.use_slicing


def test_what_was_on_before_stays_on(pipe: DiffusionPipeline) -> None:
    pipe.vae.enable_tiling()

    with pytest.raises(RuntimeError), memory.tiled_vae(pipe):
        raise RuntimeError("out of memory, again")

    assert pipe.vae.use_tiling
    assert not pipe.vae.use_slicing


def test_pipelines_without_tiles_say_so(pipe: DiffusionPipeline) -> None:
    pipe.vae = None
    with memory.tiled_vae(pipe) as tiles:
        assert not tiles
    assert not memory.can_tile(pipe)


def test_cpu_has_nowhere_to_offload_to(pipe: DiffusionPipeline) -> None:
    assert not memory.offload_on(pipe, CPU)
    assert not memory.is_offloaded(pipe)
    memory.offload_off(pipe, CPU)
    assert pipe.device == CPU


def test_offloading_is_seen_and_taken_off(pipe: DiffusionPipeline) -> None:
    """From the CPU to the CPU: what diffusers hangs on the modules is the same as on a GPU."""
    before = decoded(pipe, 8)
    pipe.enable_model_cpu_offload(device="cpu")
    assert memory.is_offloaded(pipe)

    memory.offload_off(pipe, CPU)

    assert not memory.is_offloaded(pipe)
    assert not any(hasattr(part, "_hf_hook") for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    assert torch.equal(decoded(pipe, 8), before)


if torch.cuda.is_available():  # else there is nothing that could be freed

    def test_offloading_frees_the_gpu(pipe: DiffusionPipeline) -> None:
        gpu = torch.device("cuda", 0)
        memory.offload_off(pipe, gpu)
        all_there = memory.used_bytes(gpu)

        assert memory.offload_on(pipe, gpu)
        memory.empty(gpu)
        offloaded = memory.used_bytes(gpu)
        memory.offload_off(pipe, gpu)

        assert all_there is not None
        assert offloaded is not None
        assert offloaded < all_there == memory.used_bytes(gpu)
