"""Plants close by: blurred leaves behind, sprigs in the middle, flowers in front."""

from collections.abc import Iterator

import numpy as np

from gpu_worker.engines.sketch import noise
from gpu_worker.engines.sketch.canvas import Stamp
from gpu_worker.engines.sketch.colour import Colour, mix, ramp
from gpu_worker.engines.sketch.scenes.leaves import flower, sprig
from gpu_worker.engines.sketch.scenes.sky import weather
from gpu_worker.engines.sketch.scenes.view import View


def paint_botanical(view: View) -> Iterator[float]:
    """Layers of foliage around a soft light."""
    dice, scheme = view.dice, view.scheme
    dark = scheme.light.sky[1] < 0.6
    _ground(view, dark=dark)
    yield 0.2
    kinds = dice.shuffled(("willow", "eucalyptus", "laurel", "palm"))[:3]
    for index, (blur, far) in enumerate(((0.028, 0.9), (0.011, 0.65), (0.0, 0.35), (0.0, 0.0))):
        _foliage(view, kinds[index % 3], blur, far, dark=dark)
        yield 0.2 + 0.45 * (index + 1) / 4
    if view.brief.has("flowers") or dice.chance(0.75):
        _blossoms(view, dark=dark)
    yield 0.9
    weather(view)
    yield 1.0


def _ground(view: View, *, dark: bool) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    x, y = canvas.width * dice.between(0.3, 0.7), canvas.height * dice.between(0.2, 0.5)
    light = mix(scheme.horizon, scheme.glow, 0.55) if not dark else scheme.sky
    edge = scheme.zenith if dark else mix(scheme.horizon, scheme.sky, 0.65)
    away = np.hypot((canvas.x - x) / canvas.width, (canvas.y - y) / canvas.height) * 1.35
    cells = (2.5 * canvas.width / canvas.unit, 2.5 * canvas.height / canvas.unit)
    drift = noise.field(dice, canvas.width, canvas.height, cells=cells, octaves=2)
    canvas.wash(ramp([light, mix(light, edge, 0.45), edge]), away + (drift - 0.5) * 0.3)


def _tone(view: View, far: float, *, dark: bool) -> Colour:
    """Leaves by day are darker the nearer they are; by night the nearer ones catch the light."""
    scheme, dice = view.scheme, view.dice
    green = scheme.palette.base.turned(dice.between(-16, 16)).strong(scheme.light.chroma)
    if dark:
        return green.lit(scheme.sky.lightness * (0.75 + 0.7 * (1 - far)) + dice.between(-0.03, 0.06))
    ground = scheme.horizon.lightness
    return mix(
        green.lit(ground - 0.12 - 0.40 * (1 - far) + dice.between(-0.04, 0.05)), scheme.horizon, 0.45 * far
    )


def _foliage(view: View, kind: str, blur: float, far: float, *, dark: bool) -> None:
    canvas, dice = view.canvas, view.dice
    count = int(min(40, round((3.4 + 1.5 * far) * (canvas.width + canvas.height) / canvas.unit / 2)))
    for _ in range(count):
        (x, y), angle = _rooted(view)
        length = canvas.unit * dice.between(0.42, 0.75) * (1.25 - 0.35 * far)
        whole, halves = sprig(view, (x, y), angle, length, kind)
        tone = _tone(view, far, dark=dark)
        stamp = canvas.outline(whole)
        if blur:
            canvas.lay(tone, stamp.softened(canvas.unit * blur).times(0.8))
            continue
        canvas.shade(
            view.scheme.ink,
            stamp.softened(canvas.unit * 0.014).moved(canvas.unit * 0.008, canvas.unit * 0.014).times(0.26),
        )
        canvas.lay(tone, stamp)
        canvas.lay(tone.lit(min(0.95, tone.lightness + 0.06)), canvas.outline(halves).times(0.8))


def _rooted(view: View) -> tuple[tuple[float, float], float]:
    """A place on the rim, and the direction inwards."""
    canvas, dice = view.canvas, view.dice
    side = dice.weighted({"below": 5.0, "left": 2.0, "right": 2.0, "above": 1.0})
    along, out = dice.between(0.0, 1.0), canvas.unit * 0.06
    if side == "below":
        return (along * canvas.width, canvas.height + out), (along - 0.5) * 1.3 + dice.between(-0.3, 0.3)
    if side == "above":
        return (along * canvas.width, -out), 3.14 + dice.between(-0.5, 0.5)
    if side == "left":
        return (-out, along * canvas.height), 1.2 + dice.between(-0.6, 0.6)
    return (canvas.width + out, along * canvas.height), -1.2 + dice.between(-0.6, 0.6)


def _blossoms(view: View, *, dark: bool) -> None:
    canvas, dice, scheme = view.canvas, view.dice, view.scheme
    petals = dice.pick((5, 6, 8, 13))
    base = scheme.palette.accent.lit(0.7 if dark else 0.68)
    count = int(min(24, dice.whole(3, 5) * max(canvas.width, canvas.height) / canvas.unit))
    placed: list[tuple[float, float, float]] = []
    for _ in range(count * 8):
        if len(placed) == count:
            break
        radius = canvas.unit * dice.between(0.055, 0.14)
        x, y = dice.between(0.06, 0.94) * canvas.width, dice.between(0.3, 0.95) * canvas.height
        if any(np.hypot(x - a, y - b) < (radius + r) * 0.9 for a, b, r in placed):
            continue
        placed.append((x, y, radius))
    for x, y, radius in sorted(placed, key=lambda item: item[2]):
        _lift(view, x, y, radius)
        colour = base.turned(dice.between(-18, 18)).lit(base.lightness + dice.between(-0.05, 0.08))
        flower(view, x, y, radius, dice.pick((colour, colour, mix(scheme.glow, colour, 0.3))), petals)


def _lift(view: View, x: float, y: float, radius: float) -> None:
    disc = view.canvas.disc(x + radius * 0.08, y + radius * 0.16, radius * 0.85)
    view.canvas.shade(
        view.scheme.ink, Stamp(disc.mask, disc.left, disc.top).softened(radius * 0.2).times(0.42)
    )
