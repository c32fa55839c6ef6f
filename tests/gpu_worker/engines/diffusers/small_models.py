"""Model folders of a few bytes, written by hand: whole files, with numbers that mean nothing. No torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}

SDXL = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.42.1",
    "force_zeros_for_empty_prompt": True,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

SHAPES: Mapping[str, Shapes] = {
    dtype: {"a.weight": (dtype, (64, 32)), "a.bias": (dtype, (64,))} for dtype in ("F32", "F16", "BF16")
}


def safetensors(shapes: Shapes, fill: int = 7) -> bytes:
    """A file with tensors of these types and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        size = SIZES[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes([fill]) * end


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def sdxl_files(dtype: str = "F32", variant: str = "") -> dict[str, bytes]:
    """The files of an SDXL pipeline as diffusers saves it; with a variant in names of its own."""
    dot = f".{variant}" if variant else ""
    texts = {
        "model_index.json": json.dumps(SDXL).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "tokenizer_2/vocab.json": b"{}",
        "tokenizer_2/merges.txt": b"",
    }
    for fill, part in enumerate(("text_encoder", "text_encoder_2", "unet", "vae")):
        base = "model" if part.startswith("text") else "diffusion_pytorch_model"
        texts[f"{part}/config.json"] = b"{}"
        texts[f"{part}/{base}{dot}.safetensors"] = safetensors(SHAPES[dtype], fill)
    return texts


LORA = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": ("F32", (4, 2048)),
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight": ("F32", (640, 4)),
}
