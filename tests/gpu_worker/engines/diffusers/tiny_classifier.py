"""A tiny image classifier that was really trained: bright red images are `nsfw`, all others `normal`."""

from pathlib import Path

import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
from transformers.utils import logging as transformers_logging

LABELS = {0: "normal", 1: "nsfw", 2: "violence"}  # the third one never happens
SIDE = 32  # pixels


def build_classifier(folder: Path) -> Path:
    """Trains and saves it, in a second or two, and returns the folder."""
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = ViTForImageClassification(_config())
        _train(model)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def _config() -> ViTConfig:
    return ViTConfig(
        image_size=SIDE,
        patch_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.3,
        id2label=LABELS,
        label2id={label: number for number, label in LABELS.items()},
    )


def _train(model: ViTForImageClassification) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        colours = torch.rand(32, 3, 1, 1)
        colours[::2] = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1) + 0.2 * (torch.rand(16, 3, 1, 1) - 0.5)
        red = (colours[:, 0] > 0.75) & (colours[:, 1] < 0.3) & (colours[:, 2] < 0.3)
        noise = 0.1 * (torch.rand(32, 3, SIDE, SIDE) - 0.5)
        pixels = ((colours + noise).clamp(0, 1) - 0.5) / 0.5
        loss = model(pixel_values=pixels, labels=red.flatten().long()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def red(width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), (235, 20, 25))


def blue(width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), (20, 60, 220))
