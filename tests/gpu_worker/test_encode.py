"""What the files say of themselves, in any script, and that they are the same each time."""

import io
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from PIL import Image

from contract.messages import OutputFormat
from gpu_worker.encode import encode, parameters
from gpu_worker.engines.base import Picture
from tests.gpu_worker.messages import message

PROMPTS = [
    "a lighthouse in a storm",
    "маяк в бурю, <масло> & холст",
    "暴风雨中的灯塔 🌊",
    "منارة في عاصفة",
    "line one\nline two, with \x00 and \x07 and \ud800",
]
FORMATS: list[OutputFormat] = ["png", "webp", "jpeg"]
USER_COMMENT, EXIF_IFD = 0x9286, 0x8769


def picture(mode: str = "RGB") -> Picture:
    image = Image.radial_gradient("L").resize((64, 48)).convert(mode)
    if mode == "RGBA":
        image.putalpha(128)
    return Picture(image, {"engine": "solid", "steps": 20, "scheduler": "euler"})


def opened(output_format: OutputFormat, *, mode: str = "RGB", **changes: Any) -> Image.Image:
    # model_construct: a lone surrogate would not pass the validation
    valid = message(output_format=output_format)
    asked = valid.model_copy(update=changes)
    return Image.open(io.BytesIO(encode(picture(mode), asked, "Fanfare 1")))


def as_read(text: str) -> str:
    """What becomes of characters that may not be in a file."""
    return text.replace("\ud800", "?").replace("\x00", "").replace("\x07", "")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_png_carries_prompt_model_and_seed_as_text(prompt: str) -> None:
    image = opened("png", prompt=prompt, negative_prompt="размыто", seed=42)

    texts = image.text  # type: ignore[attr-defined]
    assert texts["prompt"] == as_read(prompt)
    assert texts["negative_prompt"] == "размыто"
    assert (texts["model"], texts["seed"], texts["size"]) == ("solid", "42", "64x48")
    assert texts["Software"] == "Fanfare 1"
    assert texts["parameters"].startswith(as_read(prompt))
    assert '"scheduler": "euler"' in texts["made_with"]


@pytest.mark.parametrize("output_format", ["webp", "jpeg"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_webp_and_jpeg_carry_them_in_exif_and_xmp(output_format: OutputFormat, prompt: str) -> None:
    image = opened(output_format, prompt=prompt, negative_prompt="模糊", seed=42)

    comment = image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT]
    assert comment.startswith(b"UNICODE\x00")
    said = comment[8:].decode("utf-16-be")
    assert said.startswith(as_read(prompt) + "\nNegative prompt: 模糊\n")
    assert "Seed: 42, Size: 64x48, Model: solid" in said
    described = image.getexif()[0x010E]
    assert described.encode("latin-1").decode() == as_read(prompt)  # Pillow reads bytes as Latin-1
    xmp = ET.fromstring(image.info["xmp"])
    assert as_read(prompt) in [element.text for element in xmp.iter()]


def test_parameters_read_as_users_of_other_tools_know_them() -> None:
    asked = message(prompt="a cat", negative_prompt="blur", guidance=7.5, seed=3)

    text = parameters(asked, {"steps": 20, "engine": "solid", "scheduler": None}, "Fanfare 1")

    assert text == (
        "a cat\nNegative prompt: blur\n"
        "Steps: 20, CFG scale: 7.5, Seed: 3, Size: 64x48, Model: solid, Engine: solid, Version: Fanfare 1"
    )


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("character", ["&", "a", "я", "🌊"])
def test_prompts_of_any_length_fit(output_format: OutputFormat, character: str) -> None:
    image = opened(output_format, prompt=character * 100_000, negative_prompt=character * 100_000)

    image.load()
    if output_format != "png":
        said = image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT][8:].decode("utf-16-be")
        assert "Seed: 7" in said  # the facts survive


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_picture_gives_the_same_bytes(output_format: OutputFormat) -> None:
    asked = message(output_format=output_format)

    assert encode(picture(), asked, "Fanfare 1") == encode(picture(), asked, "Fanfare 1")


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_size_format_and_transparency(output_format: OutputFormat, mode: str) -> None:
    image = opened(output_format, mode=mode)

    assert image.format == output_format.upper()
    assert image.size == (64, 48)
    assert image.mode == ("RGB" if output_format == "jpeg" else mode)


def test_jpeg_lays_transparency_on_white() -> None:
    clear = Picture(Image.new("RGBA", (16, 16), (0, 0, 0, 0)))

    image = Image.open(io.BytesIO(encode(clear, message(output_format="jpeg"), "Fanfare 1")))

    assert image.getpixel((8, 8)) == (255, 255, 255)
