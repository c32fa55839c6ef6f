"""A canvas of light: masks are laid on it, glazed over it, or let shine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gpu_worker.engines.sketch.colour import RGB, Colour, Field

Point = tuple[float, float]
Path = Sequence[Point]  # a closed outline, in pixels
Paint = Colour | RGB

_FINE = 3  # masks are drawn so many times larger, then reduced: that is what makes edges smooth


@dataclass(frozen=True)
class Stamp:
    """A mask of 0 to 1 whose upper left corner lies at (left, top)."""

    mask: Field
    left: int = 0
    top: int = 0

    def times(self, factor: Field | float) -> "Stamp":
        """The same mask, weaker; `factor` broadcasts to the mask."""
        return Stamp(np.asarray(self.mask * factor, dtype=np.float32), self.left, self.top)

    def softened(self, radius: float) -> "Stamp":
        """The same mask blurred by `radius` pixels, with room for what spills over."""
        pad = int(radius * 2.5) + 1
        step = max(1, int(radius / 3))
        wide = np.pad(self.mask, pad)
        image = Image.fromarray((wide.clip(0, 1) * 255).astype(np.uint8))
        small = image.reduce(step) if step > 1 else image
        blurred = small.filter(ImageFilter.GaussianBlur(radius / step)).resize(
            image.size, Image.Resampling.BICUBIC
        )
        return Stamp(np.asarray(blurred, dtype=np.float32) / 255, self.left - pad, self.top - pad)

    def moved(self, across: float, down: float) -> "Stamp":
        """The same mask elsewhere."""
        return Stamp(self.mask, self.left + round(across), self.top + round(down))


class Canvas:
    """Float sRGB pixels, and the verbs that scenes paint with."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.unit = float(min(width, height))  # what sizes are measured in: the shorter side
        self.rgb: RGB = np.zeros((height, width, 3), dtype=np.float32)
        self.x: Field = np.arange(width, dtype=np.float32)[None, :] + 0.5
        self.y: Field = np.arange(height, dtype=np.float32)[:, None] + 0.5

    def wash(self, table: RGB, field: Field) -> None:
        """Fills everything from a ramp of colours by a field of 0 to 1."""
        top = len(table) - 1
        place = np.broadcast_to(field.clip(0, 1) * top, (self.height, self.width))
        self.rgb[:] = table[place.astype(np.intp)]

    def lay(self, paint: Paint, stamp: Stamp) -> None:
        """Opaque where the mask is 1. A paint that is no Colour must broadcast to the stamp's own size."""
        found = self._clip(stamp)
        if found is None:
            return
        region, mask, colour = *found, self._paint(paint, stamp)
        region += (colour - region) * mask

    def shine(self, paint: Paint, stamp: Stamp) -> None:
        """Adds light, never beyond white."""
        found = self._clip(stamp)
        if found is None:
            return
        region, mask, colour = *found, self._paint(paint, stamp)
        region += (1 - region) * colour * mask

    def shade(self, paint: Paint, stamp: Stamp) -> None:
        """Glazes: what is below shows through the colour, darker."""
        found = self._clip(stamp)
        if found is None:
            return
        region, mask, colour = *found, self._paint(paint, stamp)
        region *= 1 - (1 - colour) * mask

    def outline(self, paths: Sequence[Path]) -> Stamp:
        """The mask of filled outlines."""
        xs = [x for path in paths for x, _ in path]
        ys = [y for path in paths for _, y in path]
        if not xs:
            return Stamp(np.zeros((1, 1), dtype=np.float32))

        def draw(pen: ImageDraw.ImageDraw, at: Callable[[Point], Point]) -> None:
            for path in paths:
                pen.polygon([at(point) for point in path], fill=255)

        return self.drawn((min(xs), min(ys), max(xs), max(ys)), draw)

    def disc(self, x: float, y: float, radius: float, squash: float = 1.0) -> Stamp:
        """The mask of a disc with a smooth edge; `squash` makes it lower."""
        left, right = self._span(x - radius - 1, x + radius + 1, self.width)
        top, bottom = self._span(y - radius * squash - 1, y + radius * squash + 1, self.height)
        across, down = self.x[:, left:right] - x, (self.y[top:bottom] - y) / squash
        return Stamp((radius - np.sqrt(across**2 + down**2) + 0.5).clip(0, 1), left, top)

    def halo(self, x: float, y: float, radius: float, power: float = 2.0) -> Stamp:
        """Light that fades from 1 at its centre to 0 at about three radii."""
        left, right = self._span(x - radius * 3, x + radius * 3, self.width)
        top, bottom = self._span(y - radius * 3, y + radius * 3, self.height)
        distance = np.sqrt((self.x[:, left:right] - x) ** 2 + (self.y[top:bottom] - y) ** 2) / radius
        fade = np.exp(-(distance**power)) * (1 - (distance / 3).clip(0, 1) ** 2)
        return Stamp(np.asarray(fade, dtype=np.float32), left, top)

    def drawn(
        self,
        box: tuple[float, float, float, float],
        draw: Callable[[ImageDraw.ImageDraw, Callable[[Point], Point]], None],
    ) -> Stamp:
        """The mask of what `draw` puts down with Pillow, inside `box` (left, top, right, bottom)."""
        left, right = self._span(box[0] - 1, box[2] + 1, self.width)
        top, bottom = self._span(box[1] - 1, box[3] + 1, self.height)
        fine = Image.new("L", ((right - left) * _FINE, (bottom - top) * _FINE))
        draw(ImageDraw.Draw(fine), lambda point: ((point[0] - left) * _FINE, (point[1] - top) * _FINE))
        return Stamp(np.asarray(fine.reduce(_FINE), dtype=np.float32) / 255, left, top)

    def below(self, edge: Field) -> Stamp:
        """The mask of everything under a line; `edge` holds pixels, some for each column."""
        parts = edge.reshape(self.width, -1)
        top = int(np.clip(np.floor(parts.min()) - 1, 0, self.height - 1))
        end = int(np.clip(np.ceil(parts.max()) + 1, top + 1, self.height))
        mask = np.ones((self.height - top, self.width), dtype=np.float32)
        rows = self.y[top:end]
        fine = [(rows - parts[:, part] + 0.5).clip(0, 1) for part in range(parts.shape[1])]
        mask[: end - top] = sum(fine) / np.float32(len(fine))
        return Stamp(mask, 0, top)

    def edge(self, parts: int = 3) -> Field:
        """Places across, in pixels, `parts` of them for each column: what `below` takes heights for."""
        return (np.arange(self.width * parts, dtype=np.float32) + 0.5) / parts

    def image(self) -> Image.Image:
        """The finished pixels."""
        return Image.fromarray((self.rgb.clip(0, 1) * 255 + 0.5).astype(np.uint8), "RGB")

    @staticmethod
    def _span(low: float, high: float, size: int) -> tuple[int, int]:
        """Whole pixels from low to high on the canvas; at least one, so that no array is empty."""
        start = int(min(max(np.floor(low), 0), size - 1))
        return start, int(max(min(np.ceil(high), size), start + 1))

    def _clip(self, stamp: Stamp) -> tuple[RGB, Field] | None:
        height, width = stamp.mask.shape[:2]
        left, top = max(0, stamp.left), max(0, stamp.top)
        right, bottom = min(self.width, stamp.left + width), min(self.height, stamp.top + height)
        if left >= right or top >= bottom:
            return None
        mask = stamp.mask[top - stamp.top : bottom - stamp.top, left - stamp.left : right - stamp.left]
        return self.rgb[top:bottom, left:right], mask[..., None]

    def _paint(self, paint: Paint, stamp: Stamp) -> RGB:
        if isinstance(paint, Colour):
            return paint.rgb
        height, width = stamp.mask.shape[:2]
        rows = slice(
            max(0, -stamp.top),
            max(0, -stamp.top) + max(0, min(self.height, stamp.top + height) - max(0, stamp.top)),
        )
        columns = slice(
            max(0, -stamp.left),
            max(0, -stamp.left) + max(0, min(self.width, stamp.left + width) - max(0, stamp.left)),
        )
        whole = np.broadcast_to(paint, (height, width, 3))
        return whole[rows, columns]
