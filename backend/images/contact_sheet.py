"""All pictures of a job on one sheet, each with its caption."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from backend.errors import ImageUnreadable
from backend.images.opening import ORIGINALS, read
from backend.images.thumbnails import fit

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MAX_WIDTH = 2000  # pixels of the sheet, about
CAPTION_LINES = 2
PAPER, EMPTY, INK = (22, 23, 26), (38, 40, 45), (172, 176, 184)


def contact_sheet(
    images: Sequence[tuple[bytes, str]],
    *,
    fmt: Literal["png", "webp"] = "png",
    cell: int = 560,
    max_pixels: int = 50_000_000,
) -> bytes:
    """A sheet with all of the images, (bytes, caption) each, in their order.

    `cell` is the longest side of one picture in pixels; many pictures are smaller. One that can't be read
    leaves its place empty. Raises ValueError where there are none.
    """
    if not images:
        raise ValueError("a contact sheet of nothing")
    columns = _columns(len(images))
    cell = max(min(cell, MAX_WIDTH // columns), 96)
    pictures = [_open(data, cell, max_pixels) for data, _ in images]
    layout = _plan(pictures, columns, cell, with_captions=any(caption for _, caption in images))
    sheet = Image.new("RGB", layout.size, PAPER)
    for index, (picture, (_, caption)) in enumerate(zip(pictures, images, strict=True)):
        x, y = layout.corner(index)
        _paste(sheet, picture, x, y, layout)
        _write(sheet, caption, x, y + layout.height + layout.gap // 3, layout)
    out = BytesIO()
    sheet.save(out, fmt.upper(), **({"optimize": True} if fmt == "png" else {"quality": 88, "method": 4}))
    return out.getvalue()


@dataclass(frozen=True)
class _Layout:
    """Where everything goes, in pixels."""

    count: int
    columns: int
    width: int  # of one picture's place
    height: int
    gap: int
    caption: int  # height below each picture
    font: Font

    @property
    def size(self) -> tuple[int, int]:
        rows = math.ceil(self.count / self.columns)
        width = self.columns * (self.width + self.gap) + self.gap
        return width, rows * (self.height + self.caption + self.gap) + self.gap

    def corner(self, index: int) -> tuple[int, int]:
        """The upper left of one place; a last row that isn't full stands in the middle."""
        row, column = divmod(index, self.columns)
        missing = max((row + 1) * self.columns - self.count, 0)
        step = self.width + self.gap
        x = self.gap + column * step + missing * step // 2
        return x, self.gap + row * (self.height + self.caption + self.gap)


def _columns(count: int) -> int:
    return count if count <= 3 else math.ceil(math.sqrt(count))


def _plan(pictures: Sequence[Image.Image | None], columns: int, cell: int, *, with_captions: bool) -> _Layout:
    readable = [picture for picture in pictures if picture is not None]
    text = max(cell // 24, 11)
    return _Layout(
        count=len(pictures),
        columns=columns,
        width=max((picture.width for picture in readable), default=cell),
        height=max((picture.height for picture in readable), default=cell),
        gap=max(cell // 20, 8),
        caption=_line_height(text) * CAPTION_LINES + max(cell // 60, 3) if with_captions else 0,
        font=ImageFont.load_default(text),
    )


def _line_height(text: int) -> int:
    return text * 13 // 10


def _open(data: bytes, cell: int, max_pixels: int) -> Image.Image | None:
    try:
        image = read(data, max_pixels=max_pixels, at_least=cell, formats=(*ORIGINALS, "AVIF")).image
    except ImageUnreadable:
        return None
    return image.resize(fit(image.size, cell), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _paste(sheet: Image.Image, picture: Image.Image | None, x: int, y: int, layout: _Layout) -> None:
    """In the middle of its place, with round corners."""
    picture = picture or Image.new("RGB", (layout.width, layout.height), EMPTY)
    x += (layout.width - picture.width) // 2
    y += (layout.height - picture.height) // 2
    mask = _round_mask(picture.size, layout.gap // 3)
    if picture.mode == "RGBA":
        mask.paste(picture.getchannel("A"), mask=mask)
    sheet.paste(picture.convert("RGB"), (x, y), mask)


def _round_mask(size: tuple[int, int], radius: int) -> Image.Image:
    """Drawn four times as large, so that the corners are smooth."""
    corner = Image.new("L", (radius * 8, radius * 8))
    ImageDraw.Draw(corner).ellipse((0, 0, radius * 8 - 1, radius * 8 - 1), fill=255)
    corner = corner.resize((radius * 2, radius * 2), Image.Resampling.BOX)
    mask = Image.new("L", size, 255)
    far_x, far_y = size[0] - radius, size[1] - radius
    for at, part in (
        ((0, 0), (0, 0)),
        ((far_x, 0), (radius, 0)),
        ((0, far_y), (0, radius)),
        ((far_x, far_y), (radius, radius)),
    ):
        mask.paste(corner.crop((*part, part[0] + radius, part[1] + radius)), at)
    return mask


# -- captions -----------------------------------------------------------------------------------------


def _write(sheet: Image.Image, caption: str, x: int, y: int, layout: _Layout) -> None:
    """The caption's beginning."""
    draw = ImageDraw.Draw(sheet)
    step = (layout.caption - 3) // CAPTION_LINES if layout.caption else 0
    for line in _wrap(_drawable(caption, layout.font), layout.font, layout.width):
        draw.text((x, y), line, INK, layout.font)
        y += step


def _drawable(caption: str, font: Font) -> str:
    """Without accents, which Pillow's own font lacks; nothing where it lacks much more than those."""
    plain = unicodedata.normalize("NFKD", caption[:500])
    letters = [ch for ch in plain if not unicodedata.combining(ch)]
    missing = bytes(font.getmask("\uffff"))
    kept = [ch for ch in letters if ch.isspace() or bytes(font.getmask(ch)) != missing]
    return " ".join("".join(kept).split()) if len(kept) >= 0.8 * len(letters) else ""


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if not lines or font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], " ".join(lines[CAPTION_LINES - 1 :])]
    return [_shorten(line, font, width) for line in lines]


def _shorten(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip(" ,.;:") + "…"
