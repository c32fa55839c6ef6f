"""The catalog: what is shipped, what may be written, and how faults are told. Runs without torch."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from contract.messages import ModelCard
from gpu_worker.engines.diffusers.catalog import Defaults, Limits, LoraEntry, ModelEntry, Safety, card_of
from gpu_worker.engines.diffusers.catalog_file import SHIPPED, CatalogError, load_catalog
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS

LEAST = 'source = "owner/name"\nfamily = "sdxl"\nlicense = "MIT"\n'


def read(folder: Path, text: str) -> dict[str, ModelEntry]:
    path = folder / "catalog.toml"
    path.write_text(text)
    return dict(load_catalog(path).models)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        read(folder, text)
    return list(caught.value.faults)


# -- what is shipped -------------------------------------------------------------------------------------


def test_the_shipped_catalog_has_the_models_that_people_use() -> None:
    models = load_catalog().models
    assert {entry.family for entry in models.values()} == set(FAMILY_FACTS)
    assert set(models) == {
        "sdxl", "sdxl-turbo", "sdxl-lightning", "sd15", "sd35-medium", "sd35-large", "sd35-large-turbo",
        "flux-schnell", "flux-dev", "z-image-turbo", "sana", "qwen-image",
    }  # fmt: skip


@pytest.mark.parametrize("alias", load_catalog().models)
def test_a_shipped_model_has_a_card_that_can_be_announced(alias: str) -> None:
    entry = load_catalog().models[alias]
    card = card_of(entry)
    assert ModelCard.model_validate(card.to_wire()) == card
    assert card.name == alias
    assert card.license
    assert card.description.endswith(".")
    assert card.default_width % card.size_multiple == card.default_height % card.size_multiple == 0
    assert entry.revision is None  # the first download decides: nobody invented a commit


def test_a_model_that_needs_a_lora_has_it_and_does_not_offer_it() -> None:
    lightning = load_catalog().models["sdxl-lightning"]
    assert lightning.loras_always == ("lightning-4step",)
    assert card_of(lightning).loras == ()
    assert lightning.source == load_catalog().models["sdxl"].source


def test_nothing_of_this_needs_torch() -> None:
    code = """if True:
        import sys
        from gpu_worker.engines.diffusers import catalog, catalog_file, download, hub, weights
        catalog_file.load_catalog()
        print(sorted({"torch", "diffusers", "transformers", "huggingface_hub"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shipped_catalog_is_part_of_the_package() -> None:
    root = Path(__file__).parents[4]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "*.toml" in data["gpu_worker.engines.diffusers"]
    assert SHIPPED.parent == root / "gpu_worker/engines/diffusers"


def test_the_document_tells_all_shipped_models_and_all_keys() -> None:
    text = (Path(__file__).parents[4] / "docs/models.md").read_text()
    rows = {row[0]: row[1] for row in re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|", text, flags=re.M)}
    for alias, entry in load_catalog().models.items():
        chosen = entry.defaults
        guided = f", guidance {chosen.guidance:g}" if chosen.guidance else ""
        steps = f"{chosen.steps} step" + "s" * (chosen.steps > 1)
        assert rows[alias].strip() == f"{chosen.width} x {chosen.height}, {steps}{guided}"
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", text, flags=re.M))))
    told |= set(re.findall(r"^(\w+) = ", text, flags=re.M))
    assert set(ModelEntry.model_fields) - {"alias"} <= told
    for table in (Defaults, Limits, LoraEntry, Safety):
        assert {key for key in table.model_fields if not re.search(rf"\b{key}\b", text)} == set()


# -- what may be written ---------------------------------------------------------------------------------


def test_three_lines_are_a_model(tmp_path: Path) -> None:
    entry = read(tmp_path, f"[models.mine]\n{LEAST}")["mine"]
    card = card_of(entry)
    assert (card.engine, card.family, card.size_multiple) == ("diffusers", "sdxl", 8)
    assert card.tasks == ("text-to-image", "image-to-image", "inpainting")
    assert set(card.schedulers) == set(FAMILY_FACTS["sdxl"].schedulers)
    assert card.can_negative_prompt
    assert card.default_strength == 0.6


def test_a_model_takes_over_what_its_base_says_and_it_does_not(tmp_path: Path) -> None:
    text = f"""
        [models.one]
        {LEAST}
        defaults = {{ steps = 20, guidance = 7 }}
        [models.two]
        base = "one"
        license = "other"
        defaults = {{ steps = 8 }}
    """
    two = read(tmp_path, text)["two"]
    assert (two.source, two.license) == ("owner/name", "other")
    assert (two.defaults.steps, two.defaults.guidance) == (8, 7.0)


def test_a_path_starts_at_the_catalog(tmp_path: Path) -> None:
    text = f"[models.mine]\n{LEAST}".replace("owner/name", "./folder")
    entry = read(tmp_path, text + '[models.mine.loras.fine]\nsource = "../fine.safetensors"\n')["mine"]
    assert entry.local
    assert Path(entry.source) == tmp_path / "folder"
    assert Path(entry.loras["fine"].source).resolve() == tmp_path.parent / "fine.safetensors"


def test_a_negative_prompt_is_for_models_with_guidance(tmp_path: Path) -> None:
    entries = read(
        tmp_path,
        f"[models.a]\n{LEAST}defaults = {{ guidance = 0 }}\n"
        f"[models.b]\n{LEAST.replace('sdxl', 'flux')}defaults = {{ guidance = 3.5 }}\n",
    )
    assert not card_of(entries["a"]).can_negative_prompt
    assert not card_of(entries["b"]).can_negative_prompt


def test_a_safety_checker_for_all_models_can_be_set_and_unset(tmp_path: Path) -> None:
    text = f"""
        [safety]
        mode = "blur"
        source = "owner/checker"
        [models.a]
        {LEAST}
        [models.b]
        {LEAST}
        safety = {{ mode = "off" }}
    """
    entries = read(tmp_path, text)
    checker = entries["a"].safety.checker()
    assert checker is not None
    assert checker.source == "owner/checker"
    assert entries["b"].safety.checker() is None


def test_loras_are_told_with_their_words(tmp_path: Path) -> None:
    text = f"""
        [models.a]
        {LEAST}
        [models.a.loras.pixels]
        source = "owner/lora"
        file = "pixels.safetensors"
        default_weight = 0.8
        description = "Pixel art."
        trigger_words = ["pixel", "8-bit"]
    """
    card = card_of(read(tmp_path, text)["a"])
    assert card.max_loras == 1
    assert card.loras[0].description == "Pixel art. Trigger words: pixel, 8-bit."
    assert card.loras[0].default_weight == 0.8


# -- faults ----------------------------------------------------------------------------------------------


def test_all_faults_are_told_at_once_with_table_and_key(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [modelz]
        [models.a]
        source = "owner/name"
        famly = "sdxl"
        license = "MIT"
        [models.b]
        source = "owner/name"
        family = "sdx"
        license = "MIT"
        revision = "main"
        defaults = { steps = "3", wdth = 4 }
        """,
    )
    assert found == [
        "modelz: unknown table (did you mean models?)",
        "models.a.family: field required",
        "models.a.famly: unknown key (did you mean family?)",
        "models.b.revision: a commit, 40 hex digits in full: a branch or a tag may move",
        "models.b.family: unknown (there are: sd15, sdxl, sd3, flux, z-image, sana, qwen-image)",
        "models.b.defaults.steps: input should be a valid integer",
        "models.b.defaults.wdth: unknown key (did you mean width?)",
    ]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('alias = "b"', "models.a.alias: unknown key"),
        ('schedulers = ["eulr"]', "models.a.schedulers: 'eulr' is not for sdxl (did you mean euler?)"),
        ('defaults = { scheduler = "flow-euler" }', "models.a.defaults.scheduler: unknown"),
        ("defaults = { width = 513 }", "models.a.defaults.width: 513 is no multiple of 8"),
        ("defaults = { height = 4096 }", "models.a.defaults.height: 4096 is not within limits"),
        ("limits = { max_pixels = 9 }", "models.a.limits.max_pixels: is less than the default size"),
        ("limits = { min_size = 1024, max_size = 512 }", "models.a.limits.min_size: is more than max_size"),
        ("defaults = { steps = 500 }", "models.a.defaults.steps: is more than limits.max_steps"),
        ("limits = { batch = 0 }", 'models.a.limits.batch: between 1 and 256, or "auto"'),
        ('loras_always = ["none"]', "models.a.loras_always: there is no [loras.none]"),
        ('loras = { x = { source = "a/b" } }', "models.a.loras.x: file: which .safetensors file"),
        ('loras = { x = { source = "a/b", file = "x.bin" } }', "models.a.loras.x.file: a .safetensors file"),
        (
            'loras = { x = { source = "a/b", file = "../x.safetensors" } }',
            "models.a.loras.x.file: a .safetensors file",
        ),
        (
            'loras = { x = { source = "/l.safetensors", family = "flux" } }',
            "models.a.loras.x.family: flux doesn't go with sdxl",
        ),
        ('tasks = ["image-to-image"]', "models.a.tasks: text-to-image is always one"),
        ('safety = { mode = "blur" }', "models.a.safety: source and unsafe_labels"),
        ('fp8 = true\ndtype = "float32"', "models.a.fp8: goes with bfloat16 alone"),
        ('base = "b"', "models.a.base: there is no model 'b'"),
        ('base = "a"', "models.a.base: goes in a circle: a -> a"),
    ],
)
def test_a_fault_is_told(tmp_path: Path, more: str, fault: str) -> None:
    assert [one for one in faults(tmp_path, f"[models.a]\n{LEAST}{more}\n") if one.startswith(fault)]


def test_a_task_that_the_family_cannot_do_is_a_fault(tmp_path: Path) -> None:
    text = f'[models.a]\n{LEAST.replace("sdxl", "sana")}tasks = ["text-to-image", "inpainting"]\n'
    assert faults(tmp_path, text) == ["models.a.tasks: the family sana can't do inpainting"]


@pytest.mark.parametrize(
    "source", ["name", "owner/name/more", "https://host/owner/name", "", "-owner/name", "owner/na me"]
)
def test_a_source_is_a_path_or_a_hub_id(tmp_path: Path, source: str) -> None:
    (fault,) = faults(tmp_path, f"[models.a]\n{LEAST}".replace("owner/name", source))
    assert fault.startswith("models.a.source: the hub's id")


def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "[models.a]\nsource = oops\n")
    assert fault.startswith("is not TOML: ")
    assert "line 2" in fault


def test_a_missing_file_and_a_wrong_shape_are_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="can't be read: No such file"):
        load_catalog(tmp_path / "none.toml")
    assert faults(tmp_path, "models = 3") == ["models: is not a table of tables: write [models.ALIAS]"]
    assert faults(tmp_path, "[models]\na = 3") == ["models: is not a table of tables: write [models.ALIAS]"]
