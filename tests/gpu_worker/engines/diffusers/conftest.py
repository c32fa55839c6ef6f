"""Tiny models for the tests of the diffusers engine; without torch these skip, or fail in CI."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.services import missing

NEEDED = ("torch", "diffusers", "transformers", "accelerate", "peft")
WITHOUT_TORCH = {"test_catalog.py", "test_weights.py", "test_hub.py", "test_examination.py"}
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]


class CannotRun(pytest.Module):
    """Stands for a test file that can't be imported here."""

    def collect(self) -> NoReturn:
        missing(f"no {', '.join(ABSENT)}: the extra `gpu` is not installed")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    runs = not ABSENT or module_path.name in WITHOUT_TORCH
    return None if runs else CannotRun.from_parent(parent, path=module_path)


class TinyModels(dict[str, Path]):
    """Model folders by family, as in `tiny.BUILDERS`; each is built when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, family: str) -> Path:
        from tests.gpu_worker.engines.diffusers.tiny import build  # not before it is known that torch is here

        self[family] = build(family, self._folder / family)
        return self[family]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Not to be changed: others use them too."""
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other a hundred times as long as they work."""
    if ABSENT:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
