"""Beside the tiny models: LoRAs good and bad, models that a node must refuse, and such as are looked at."""

import json
import pickle
import shutil
from pathlib import Path

from tests.gpu_worker.engines.diffusers.tiny_classifier import build_classifier
from tests.gpu_worker.engines.diffusers.tiny_loras import build_lora

REFUSED = ("pickled", "custom-code", "broken")  # models
SAFETY = ("flag", "blur", "refuse")  # modes; each is a model

# The tiny classifier holds noise for "normal": here that is what must not be.
_SAFETY = """
[models.safety-{mode}]
base = "tiny-sd15"
safety = {{ mode = "{mode}", source = "./models/classifier", unsafe_labels = ["normal"] }}
"""

TABLES = """
[models.tiny-sdxl.loras.right]
source = "./loras/right.safetensors"
default_weight = 0.7
description = "Another hand."
trigger_words = ["handmade"]
[models.tiny-sdxl.loras.foreign]
source = "./loras/foreign.safetensors"
[models.tiny-sdxl.loras.pickled]
source = "./loras/pickled.safetensors"
[models.gone]
base = "tiny-sd15"
source = "./models/gone"
""" + "".join(
    [f'[models.{name}]\nbase = "tiny-sd15"\nsource = "./models/{name}"\n' for name in REFUSED]
    + [_SAFETY.format(mode=mode) for mode in SAFETY]
)


def build_odd(folder: Path) -> None:
    """All that TABLES name, beside a catalog that `write_catalog` wrote."""
    models, loras = folder / "models", folder / "loras"
    loras.mkdir()
    build_lora(models / "sdxl", loras / "right.safetensors")
    build_lora(models / "sd15", loras / "foreign.safetensors")
    (loras / "pickled.safetensors").write_bytes(pickle.dumps({"lora_A.weight": [1.0]}))
    for name in (*REFUSED, "gone"):
        shutil.copytree(models / "sd15", models / name)
    _pickle_the_unet(models / "pickled")
    _bring_code(models / "custom-code")
    _cut_the_unet(models / "broken")
    build_classifier(models / "classifier")


def _pickle_the_unet(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps({"weight": [1.0]}))


def _bring_code(folder: Path) -> None:
    index = folder / "model_index.json"
    content = json.loads(index.read_text("utf-8"))
    content["_class_name"] = ["pipeline", "MyPipeline"]
    index.write_text(json.dumps(content), "utf-8")
    (folder / "pipeline.py").write_text("raise SystemExit('code of a model was run')\n", "utf-8")


def _cut_the_unet(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
