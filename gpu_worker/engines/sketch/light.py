"""What light does to a palette: the roles of colour that scenes paint with."""

from dataclasses import dataclass

from gpu_worker.engines.sketch.colour import Colour, mix
from gpu_worker.engines.sketch.palettes import Palette


@dataclass(frozen=True)
class Light:
    """A time of day or a lamp: lightnesses of the roles, and how strong colour and haze are."""

    name: str
    sky: tuple[float, float, float]  # lightness overhead, between, at the horizon
    near: float  # lightness of the nearest shapes
    glow: float = 0.93  # lightness of the source
    warmth: float = 0.6  # how far the horizon takes the hue of the glow
    chroma: float = 1.0
    haze: float = 0.75  # how much distance fades
    sun: float = 0.25  # height of sun or moon over the horizon, as a share of the sky
    night: bool = False


LIGHTS: dict[str, Light] = {
    light.name: light
    for light in (
        Light("day", (0.70, 0.82, 0.94), 0.36, 0.98, 0.35, 0.9, 0.7, 0.62),
        Light("golden", (0.60, 0.76, 0.89), 0.25, 0.95, 0.95, 1.15, 0.8, 0.2),
        Light("dawn", (0.66, 0.81, 0.91), 0.34, 0.96, 0.8, 0.85, 0.9, 0.14),
        Light("dusk", (0.32, 0.50, 0.75), 0.17, 0.86, 0.9, 1.2, 0.7, 0.1),
        Light("blue", (0.30, 0.46, 0.66), 0.17, 0.84, 0.35, 1.05, 0.75, 0.3, night=True),
        Light("night", (0.15, 0.23, 0.36), 0.09, 0.92, 0.25, 0.9, 0.6, 0.66, night=True),
        Light("overcast", (0.70, 0.79, 0.87), 0.36, 0.92, 0.3, 0.5, 0.95, 0.4),
        Light("mist", (0.79, 0.86, 0.91), 0.44, 0.95, 0.5, 0.55, 1.0, 0.3),
        Light("storm", (0.24, 0.38, 0.62), 0.14, 0.82, 0.4, 0.65, 0.8, 0.2),
        Light("lamp", (0.22, 0.34, 0.52), 0.12, 0.90, 0.9, 1.1, 0.5, 0.3, night=True),
        Light("neon", (0.16, 0.28, 0.48), 0.08, 0.82, 0.8, 1.6, 0.7, 0.3, night=True),
    )
}


@dataclass(frozen=True)
class Scheme:
    """A palette under a light: every colour that a scene uses."""

    palette: Palette
    light: Light
    zenith: Colour
    sky: Colour
    horizon: Colour
    glow: Colour  # sun, lamp, lit edges
    far: Colour  # the most distant shapes
    middle: Colour
    near: Colour  # the nearest shapes
    accent: Colour
    paper: Colour  # a pale ground
    ink: Colour  # the darkest mark

    def depth(self, share: float) -> Colour:
        """The colour of shapes at a distance: 0 is nearest, 1 farthest."""
        if share < 0.5:
            return mix(self.near, self.middle, share * 2)
        return mix(self.middle, self.far, share * 2 - 1)


def scheme(palette: Palette, light: Light, *, vivid: float = 1.0) -> Scheme:
    """The roles of colour; `vivid` strengthens (over 1) or mutes (under 1) all of them."""
    force = light.chroma * vivid
    base, glow, accent = (colour.strong(force) for colour in (palette.base, palette.glow, palette.accent))
    horizon = mix(base, glow, light.warmth).lit(light.sky[2])
    horizon = horizon.strong(1.1 if light.sky[2] < 0.8 else 0.85)
    near = base.lit(light.near).strong(0.75)
    far = mix(base.lit(light.sky[1]), horizon, 0.35 + 0.35 * light.haze).lit(
        (light.sky[1] + light.sky[2]) / 2 - 0.07
    )
    bright = 0.55 + 0.35 * light.sky[2]
    return Scheme(
        palette=palette,
        light=light,
        zenith=base.lit(light.sky[0]),
        sky=mix(base, glow, light.warmth * 0.35).lit(light.sky[1]),
        horizon=horizon,
        glow=glow.lit(light.glow).strong(0.75),
        far=far,
        middle=mix(near, far, 0.45).strong(1.25),
        near=near,
        accent=accent.lit(min(0.72, max(0.55, bright * 0.78))),
        paper=mix(glow, base, 0.25).lit(0.94).strong(0.3),
        ink=base.lit(0.2).strong(0.5),
    )
