"""Looks into a model's folder without running anything of it: what it weighs, and whether it may be loaded.

Only `model_index.json`, the configurations and the headers of safetensors files are read; pickles are never
opened. What is refused here never gets to diffusers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS, FamilyFacts
from gpu_worker.engines.diffusers.safetensors_header import (
    BITS,
    FLOATS,
    BadHeader,
    Tensor,
    read_header,
)

INDEX: Final = "model_index.json"
MAX_JSON_BYTES: Final = 64_000_000  # a tokenizer.json has up to 35 MB
PICKLES: Final = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".msgpack"})
LIBRARIES: Final = frozenset({"diffusers", "transformers"})
WITHOUT_WEIGHTS: Final = (
    "Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor", "ImageProcessorFast",
)  # fmt: skip
OF_TRANSFORMERS: Final = "model"
NAMES: Final = ("diffusion_pytorch_model", OF_TRANSFORMERS)  # of weight files
BITS_OF: Final = {"bfloat16": 16, "float16": 16, "float32": 32, "auto": 16}
SAMPLE_BYTES: Final = 65_536


class UnusableFiles(Exception):
    """Files that a node won't load; `faults` are all reasons in plain words."""

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class UnusableModel(UnusableFiles):
    """A model's folder is not what a node loads."""


class UnusableLora(UnusableFiles):
    """A LoRA's file is not what a node loads."""


@dataclass(frozen=True)
class Component:
    """One part of a pipeline: unet, vae, text_encoder, ..."""

    name: str
    class_name: str
    files: tuple[str, ...] = ()  # within the folder; none: it has no weights
    bytes_by_dtype: Mapping[str, int] = field(default_factory=dict)  # as safetensors calls the types
    parameters: int = 0

    def bytes_as(self, dtype: str) -> int:
        """Bytes in memory, once its floats are of this type (bfloat16, float16, float32, auto)."""
        bits = BITS_OF[dtype]
        return sum(
            size * bits // BITS[kind] if kind in FLOATS else size
            for kind, size in self.bytes_by_dtype.items()
        )


@dataclass(frozen=True)
class Inspection:
    """A folder that may be loaded."""

    folder: Path
    pipeline: str  # name of its class in diffusers
    components: tuple[Component, ...]

    @property
    def parameters(self) -> int:
        """Of all components."""
        return sum(one.parameters for one in self.components)

    @property
    def bytes_on_disk(self) -> int:
        """Of all weights that are loaded."""
        return sum(sum(one.bytes_by_dtype.values()) for one in self.components)

    def bytes_as(self, dtype: str) -> int:
        """Bytes of all weights in memory."""
        return sum(one.bytes_as(dtype) for one in self.components)


def inspect(folder: Path, family: str, variant: str | None = None) -> Inspection:
    """What a model's folder holds. Raises `UnusableModel` with all reasons against loading it."""
    facts = FAMILY_FACTS[family]
    index = _index(folder)
    faults = [*_wrong_pipeline(index, facts, family), *_foreign_code(folder), *_links_that_leave(folder)]
    components = []
    for name, (library, class_name) in sorted(parts(index, facts.unused).items()):
        try:
            components.append(_component(folder, name, library, class_name, variant))
        except UnusableModel as exc:
            faults.extend(exc.faults)
    if faults:
        raise UnusableModel(*faults)
    return Inspection(folder, index["_class_name"], tuple(components))


def parts(index: Mapping[str, Any], unused: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
    """The components that a model_index.json names: library and class of each."""
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if not name.startswith("_") and name not in set(unused)
        if isinstance(value, list) and len(value) == 2 and value != [None, None]
    }  # fmt: skip


# -- the folder as a whole ---------------------------------------------------------------------------------


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise UnusableModel(_without_index(folder))
    index = _json(path)
    if not isinstance(index, dict):
        raise UnusableModel(f"{INDEX} can't be understood")
    return index


def _without_index(folder: Path) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    suffixes = {path.suffix for path in folder.iterdir()}
    single = "; a single file of all weights is not taken" if suffixes & {".safetensors", *PICKLES} else ""
    return f"there is no {INDEX} in the folder, as diffusers saves it{single}"


def _json(path: Path) -> object:
    """What the file says; None where it can't be understood."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _wrong_pipeline(index: Mapping[str, Any], facts: FamilyFacts, family: str) -> Iterator[str]:
    name = index.get("_class_name")
    if not isinstance(name, str) or "custom_pipeline" in index:
        yield "it brings a pipeline of its own, which is code"
    elif name not in facts.pipelines.values():
        yield f"it is a {name[:80]}, which is not of the family {family}"


def _foreign_code(folder: Path) -> Iterator[str]:
    files = [*folder.glob("*"), *folder.glob("*/*")]
    code = sorted(str(path.relative_to(folder)) for path in files if path.suffix in {".py", ".so", ".pyc"})
    if code:
        yield f"it brings code of its own ({', '.join(code[:3])})"
    for path in files:
        content = _json(path) if path.name in {"config.json", "tokenizer_config.json"} else None
        if isinstance(content, dict) and ({"auto_map", "custom_pipeline"} & set(content)):
            yield f"it asks for code of its own ({path.relative_to(folder)}: auto_map)"


def _links_that_leave(folder: Path) -> Iterator[str]:
    """Links may point to within the folder, or, in the hub's cache, to within that cache."""
    real = folder.resolve()
    home = real.parents[2] if real.parent.name == "snapshots" and len(real.parents) > 2 else real
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            yield f"{path.relative_to(folder)} is a link to outside of its folder"


# -- one component -----------------------------------------------------------------------------------------


def _component(
    folder: Path, name: str, library: object, class_name: object, variant: str | None
) -> Component:
    if library not in LIBRARIES or not isinstance(class_name, str) or not class_name.isidentifier():
        raise UnusableModel(f"{name} is not of diffusers or transformers, but code of its own")
    if "/" in name or name in {"", ".", ".."}:
        raise UnusableModel(f"{name[:40]!r} is no component's name")
    if not (folder / name).is_dir():
        raise UnusableModel(f"{name} is missing")
    if class_name.endswith(WITHOUT_WEIGHTS):
        return Component(name, class_name)
    files = _weight_files(folder / name, name, variant)
    tensors = [tensor for file in files for tensor in _tensors(folder, file)]
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.bytes
    return Component(name, class_name, files, dict(sizes), sum(tensor.numbers for tensor in tensors))


def _weight_files(folder: Path, name: str, variant: str | None) -> tuple[str, ...]:
    """The files that diffusers will read: those of the variant where there are any."""
    present = {path.name for path in folder.iterdir()}
    files = choose(present, variant)
    if not files:
        pickled = any(Path(one).suffix in PICKLES for one in present)
        why = (
            "its weights are pickles, which can run code: only safetensors are loaded"
            if pickled
            else "no weights"
        )
        raise UnusableModel(f"{name}: {why}")
    if not files[0].endswith(".json"):
        return tuple(f"{name}/{one}" for one in files)
    return tuple(f"{name}/{shard}" for shard in _shards(folder / files[0], name, present))


def choose(present: Iterable[str], variant: str | None) -> tuple[str, ...]:
    """Of a component's files: the one with its weights, or the one that lists them. None: empty."""
    names = set(present)
    for kind in (variant, None) if variant else (None,):
        dot = f".{kind}" if kind else ""
        for base in NAMES:
            files = [f"{base}.safetensors.index{dot}.json", f"{base}{dot}.safetensors"]
            for file in files if base != OF_TRANSFORMERS else reversed(files):  # as each library prefers
                if file in names:
                    return (file,)
    return ()


def _shards(index: Path, name: str, present: set[str]) -> list[str]:
    content = _json(index)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(isinstance(one, str) for one in table.values()):
        raise UnusableModel(f"{name}/{index.name} can't be understood")
    shards = sorted(set(table.values()))
    bad = [one for one in shards if not one.endswith(".safetensors") or "/" in one]
    if bad:
        raise UnusableModel(f"{name}/{index.name} names what is not safetensors ({bad[0][:80]})")
    missing = [one for one in shards if one not in present]
    if missing:
        raise UnusableModel(f"{name}: {len(missing)} of {len(shards)} files of its weights are missing")
    return shards


def _tensors(folder: Path, file: str) -> Iterable[Tensor]:
    try:
        return read_header(folder / file).values()
    except BadHeader as exc:
        raise UnusableModel(f"{file} {exc}") from exc


# -- LoRAs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraInspection:
    """A LoRA's file that may be loaded."""

    file: Path
    family: str | None  # that it seems to be made for; None: can't be told
    tensors: int
    bytes: int


def inspect_lora(file: Path) -> LoraInspection:
    """What a LoRA's file holds. Raises `UnusableLora`."""
    if file.suffix != ".safetensors":
        raise UnusableLora("only .safetensors files are loaded: others can run code")
    try:
        header = read_header(file)
    except BadHeader as exc:
        raise UnusableLora(f"{file.name} {exc}") from exc
    if not any("lora" in key.lower() for key in header):
        raise UnusableLora(f"{file.name} holds no LoRA")
    return LoraInspection(
        file, _family_of(header), len(header), sum(tensor.bytes for tensor in header.values())
    )


# Words in the names of layers that only one family has; the first that is found decides.
_MARKS: Final = (
    ("flux", ("single_transformer_blocks", "single_blocks", "double_blocks")),
    ("qwen-image", ("img_mlp", "txt_mlp", "img_mod", "txt_mod", "img_in.", "txt_in.")),
    ("sd3", ("joint_blocks", "ff_context", "add_q_proj", "context_embedder")),
    ("z-image", ("noise_refiner", "context_refiner", "attention.to_q", "attention_to_q", "attention.qkv")),
    ("sdxl", ("lora_te2", "text_encoder_2.", "lora_te1")),
)
_WIDTH_OF_TEXT: Final = {768: "sd15", 2048: "sdxl", 2240: "sana"}


def _family_of(header: Mapping[str, Tensor]) -> str | None:
    for family, marks in _MARKS:
        if any(mark in key for key in header for mark in marks):
            return family
    # What is left looks at texts in layers "attn2": how wide these are tells the text encoder
    widths = {
        tensor.shape[-1]
        for key, tensor in header.items()
        if "attn2" in key and ("to_k" in key or "to_v" in key)
        if ("lora_down" in key or "lora_A" in key or "lora.down" in key) and tensor.shape
    }  # fmt: skip
    known = {_WIDTH_OF_TEXT[width] for width in widths if width in _WIDTH_OF_TEXT}
    return known.pop() if len(known) == 1 else None


# -- the revision of a folder ------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """40 hex digits that stand for a folder or file of this machine: other content, another digest.

    Of small files all is read; of large ones the size, the beginning, the middle and the end, so that it
    takes no time. Files whose name begins with a dot don't count.
    """
    files = [path] if path.is_file() else sorted(_visible(path), key=lambda one: str(one.relative_to(path)))
    total = hashlib.sha256()
    for file in files:
        name = "" if file == path else str(file.relative_to(path))
        total.update(f"{name}\0{file.stat().st_size}\0".encode())
        total.update(_sample(file))
    return total.hexdigest()[:40]


def _visible(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as opened:
        if size <= 4 * SAMPLE_BYTES:
            return opened.read()
        pieces = []
        for start in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES):
            opened.seek(start)
            pieces.append(opened.read(SAMPLE_BYTES))
        return b"".join(pieces)
