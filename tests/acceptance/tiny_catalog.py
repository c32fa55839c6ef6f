"""A catalog of tiny models on disk, as an operator would write it."""

from collections.abc import Mapping
from pathlib import Path

from tests.gpu_worker.engines.diffusers.tiny import build

GUIDANCE = {"sdxl": 5.0, "sd15": 5.0, "flux": 3.5, "sd3": 5.0, "z-image": 0.0}
FAMILIES = tuple(GUIDANCE)


def write_catalog(folder: Path, extra: str = "", *, families: Mapping[str, str] | None = None) -> Path:
    """Builds the models (alias -> family; by default all five, as tiny-<family>), and writes the catalog."""
    chosen = families or {f"tiny-{family}": family for family in FAMILIES}
    tables = [_table(folder, alias, family) for alias, family in chosen.items()]
    catalog = folder / "catalog.toml"
    catalog.write_text("\n".join([*tables, extra]), "utf-8")
    return catalog


def _table(folder: Path, alias: str, family: str) -> str:
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (models / family).exists():
        build(family, models / family)
    return f"""
[models.{alias}]
source = "./models/{family}"
family = "{family}"
license = "none needed: random weights"
defaults = {{ width = 64, height = 64, steps = 4, guidance = {GUIDANCE[family]} }}
limits = {{ min_size = 32, max_size = 256, batch = 4 }}
"""
