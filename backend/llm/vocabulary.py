"""The words of the template: compositions, lights, palettes, media and finishes, and what each goes with.

No word here names a thing that could be in a picture (no window, no paper, no figure): what is shown is for
the message to say. Each palette names its colours, each light its time of day.
"""

from dataclasses import dataclass

TIMES = frozenset({"dawn", "day", "golden", "dusk", "night"})
DAYLIGHT = frozenset({"dawn", "day", "golden"})
LATE = frozenset({"golden", "dusk", "night"})
WEATHERS = frozenset({"storm", "rain", "fog", "snow"})
SEASONS = frozenset({"spring", "summer", "autumn", "winter"})


@dataclass(frozen=True)
class Composition:
    """How the picture is laid out."""

    text: str
    view: str = ""  # close, above or wide, where it is one of these
    shape: str = ""  # wide or tall, where only such a format takes it


@dataclass(frozen=True)
class Light:
    """When it is, and what the sky does."""

    text: str
    times: frozenset[str]
    weathers: frozenset[str] = frozenset()  # in which it can be
    only: bool = False  # in these weathers alone: never where the message names none
    on_demand: bool = False  # only where the message names the time


@dataclass(frozen=True)
class Palette:
    """Which colours."""

    text: str
    times: frozenset[str] = TIMES
    seasons: frozenset[str] = SEASONS
    pastel: bool = False


@dataclass(frozen=True)
class Medium:
    """What the picture is made with."""

    text: str
    family: str
    on_demand: bool = False  # only where the message asks for it
    colourless: bool = True  # can do without colour


def _times(*names: str) -> frozenset[str]:
    return frozenset(names)


COMPOSITIONS = (
    Composition("wide shot with a low horizon", view="wide"),
    Composition("wide shot with a high horizon", view="wide"),
    Composition("sweeping wide-angle view with strong depth", view="wide"),
    Composition("panoramic framing, the subject off to one side", view="wide", shape="wide"),
    Composition("distant view, the subject small in generous emptiness", view="wide"),
    Composition("close-up on the most telling detail", view="close"),
    Composition("tight close-up filling the frame", view="close"),
    Composition("close-up from a slight angle, shallow focus", view="close"),
    Composition("intimate close-up, cropped off-centre", view="close"),
    Composition("bird's-eye view, everything seen from straight above", view="above"),
    Composition("aerial view at a steep angle", view="above"),
    Composition("overhead arrangement in careful order", view="above"),
    Composition("high three-quarter view looking down", view="above"),
    Composition("low angle looking up, monumental"),
    Composition("worm's-eye perspective with soaring verticals", shape="tall"),
    Composition("tall composition rising from bottom to top", shape="tall"),
    Composition("eye-level view, plain and frontal"),
    Composition("centred, perfectly symmetrical composition"),
    Composition("rule-of-thirds composition, open on the right"),
    Composition("rule-of-thirds composition, open on the left"),
    Composition("asymmetrical composition with quiet negative area above"),
    Composition("strong diagonal composition full of movement"),
    Composition("deep one-point perspective leading the eye inward"),
    Composition("two-point perspective from a corner"),
    Composition("three-quarter view from slightly above"),
    Composition("framed by dim forms close to the viewer"),
    Composition("foreground, middle distance and far distance clearly staggered"),
    Composition("spiral composition winding towards the subject"),
    Composition("long-lens view, distances compressed"),
    Composition("slightly tilted, dynamic framing"),
    Composition("circular composition around a luminous centre"),
    Composition("bold silhouette against an open backdrop"),
)

_WET = _times("storm", "rain")
LIGHTS = (
    Light("first light at dawn, long and tender", _times("dawn"), _times("snow")),
    Light("sunrise from behind, edges aglow", _times("dawn"), _times("snow", "fog")),
    Light("early morning light slanting in low", _times("dawn")),
    Light("hushed dawn with a trace of mist", _times("dawn"), _times("fog")),
    Light("pale dawn under heavy clouds", _times("dawn"), WEATHERS, only=True),
    Light("clear midday sunlight with crisp shadows", _times("day")),
    Light("bright, high-key daylight, airy and open", _times("day"), _times("snow")),
    Light("even daylight under an overcast sky", _times("day"), WEATHERS),
    Light("dappled sunshine, shifting and lively", _times("day")),
    Light("gentle daylight from one side, slow gradations", _times("day"), WEATHERS),
    Light("golden hour, the sun raking across from the left", _times("golden")),
    Light("golden hour backlight with glowing rims", _times("golden"), _times("snow", "fog")),
    Light("late-afternoon sun, long diagonal shadows", _times("golden"), _times("snow")),
    Light("sunset glow fading from warm to cool", _times("golden")),
    Light("sunset breaking under a bank of clouds", _times("golden"), WEATHERS),
    Light("blue hour, cool and still", _times("dusk"), _times("snow", "fog")),
    Light("dusk, the last light low along the edge of the sky", _times("dusk")),
    Light("twilight with a few warm points of light", _times("dusk"), WEATHERS),
    Light("deep twilight, forms dissolving at the edges", _times("dusk"), WEATHERS),
    Light("night, moonlit, with long cool shadows", _times("night"), _times("snow")),
    Light("starlit night, deep and still", _times("night")),
    Light("night, one warm lantern glow in the dark", _times("night"), WEATHERS),
    Light("candlelight at night, everything else in shadow", _times("night"), WEATHERS, on_demand=True),
    Light("night, warm and cool lights in contrast", _times("night"), _WET, on_demand=True),
    Light("midnight, dim and velvety, a faint rim of light", _times("night"), WEATHERS, on_demand=True),
    Light(
        "storm light breaking through heavy clouds",
        _times("dawn", "day", "golden"),
        _times("storm"),
        only=True,
    ),
    Light(
        "dramatic stormy sky, one shaft of light", _times("day", "golden", "dusk"), _times("storm"), only=True
    ),
    Light("distant lightning in a stormy night", _times("night"), _times("storm"), only=True),
    Light("stormy dusk, wind-torn and brooding", _times("dusk"), _times("storm"), only=True),
    Light("rainy daylight, wet surfaces shining", _times("day", "dawn"), _WET, only=True),
    Light("low sun through falling rain", _times("golden"), _WET, only=True),
    Light("rainy night, lights mirrored in the wet", _times("night", "dusk"), _WET, only=True),
    Light("daylight glowing through dense fog", _times("day", "dawn"), _times("fog"), only=True),
    Light("low sun dissolving in mist", _times("golden", "dawn"), _times("fog"), only=True),
    Light("foggy night, haloes around every light", _times("night", "dusk"), _times("fog"), only=True),
    Light("snowy daylight, soft and reflected from below", _times("day", "dawn"), _times("snow"), only=True),
    Light("low sun over fresh snow, long cool shadows", _times("golden", "dawn"), _times("snow"), only=True),
    Light("snowy night, flakes caught in lamplight", _times("night", "dusk"), _times("snow"), only=True),
)

PALETTES = (
    Palette("teal and amber"),
    Palette("navy, cream and terracotta"),
    Palette("sage, ivory and terracotta"),
    Palette("charcoal, ivory and vermilion"),
    Palette("indigo and tangerine"),
    Palette("emerald, black and gold", LATE),
    Palette("crimson, black and ivory", LATE),
    Palette("slate, sand and coral"),
    Palette("cobalt, white and saffron", DAYLIGHT),
    Palette("plum, teal and blush"),
    Palette("olive, ochre and cream"),
    Palette("turquoise, copper and cream"),
    Palette("magenta, violet and navy", LATE),
    Palette("cerulean, sand and white", DAYLIGHT),
    Palette("burgundy, blush and gold"),
    Palette("sepia, tan and ivory"),
    Palette("jade, navy and pearl"),
    Palette("ultramarine, cyan and white"),
    Palette("peach, lavender and slate", pastel=True),
    Palette("apricot, mauve and ivory", pastel=True),
    Palette(
        "mint, cream and coral", _times("dawn", "day", "golden"), _times("spring", "summer"), pastel=True
    ),
    Palette("blush, mint and lilac", DAYLIGHT, _times("spring"), pastel=True),
    Palette("lilac, moss and cream", DAYLIGHT, _times("spring"), pastel=True),
    Palette("pink, azure and white", DAYLIGHT, _times("spring", "summer"), pastel=True),
    Palette("lime, azure and cream", DAYLIGHT, _times("spring", "summer")),
    Palette("coral, turquoise and sand", frozenset({*DAYLIGHT, "dusk"}), _times("summer")),
    Palette("yellow, cobalt and white", DAYLIGHT, _times("summer")),
    Palette("fuchsia, tangerine and indigo", LATE, _times("summer")),
    Palette("rust, mustard and moss", seasons=_times("autumn")),
    Palette("burgundy, ochre and umber", seasons=_times("autumn")),
    Palette("amber, maroon and slate", seasons=_times("autumn")),
    Palette("copper, olive and plum", seasons=_times("autumn")),
    Palette("umber, tangerine and cream", seasons=_times("autumn")),
    Palette("navy, rust and honey", seasons=_times("autumn", "winter")),
    Palette("ice blue, silver and white", seasons=_times("winter")),
    Palette("ice blue, lavender and pearl", seasons=_times("winter"), pastel=True),
    Palette("forest green, crimson and white", seasons=_times("winter")),
    Palette("indigo, silver and gold", _times("dusk", "night"), _times("winter", "autumn")),
    Palette("navy, silver and violet", _times("dusk", "night")),
    Palette("midnight navy and honey", _times("dusk", "night")),
    Palette("teal, black and copper", _times("dusk", "night")),
    Palette("sapphire, plum and amber", _times("dusk", "night")),
)
MONOCHROMES = (
    Palette("black and white"),
    Palette("black and white, high-contrast"),
    Palette("black and white, grey-toned"),
    Palette("monochrome grey"),
)
COMPANIONS = (
    "cream",
    "charcoal",
    "ivory",
    "navy",
    "slate",
    "sand",
    "teal",
    "amber",
    "pearl",
    "plum",
    "copper",
    "sage",
)

MEDIA = (
    Medium("photograph on 35mm film, natural grain", "photo"),
    Medium("medium-format photograph, exquisite tonality", "photo"),
    Medium("editorial photograph, 50mm lens", "photo"),
    Medium("cinematic film still, anamorphic lens", "photo"),
    Medium("documentary photograph, 28mm lens", "photo"),
    Medium("loose watercolor, wet in wet", "watercolor", colourless=False),
    Medium("watercolor with fine ink outlines", "watercolor", colourless=False),
    Medium("transparent watercolor in built-up glazes", "watercolor", colourless=False),
    Medium("oil painting with visible brushwork", "oil"),
    Medium("impasto oil painting, palette-knife texture", "oil"),
    Medium("classical oil painting in thin glazes", "oil"),
    Medium("matte gouache painting", "gouache"),
    Medium("gouache illustration with dry-brush edges", "gouache"),
    Medium("ink drawing with color washes", "ink", colourless=False),
    Medium("brush-and-ink drawing tinted with color", "ink", colourless=False),
    Medium("fine pen-and-ink linework with pale tints", "ink", colourless=False),
    Medium("colored pencil drawing", "pencil", colourless=False),
    Medium("graphite pencil sketch with a little color", "pencil", colourless=False),
    Medium("chalk drawing, velvety and blended", "pastel", colourless=False),
    Medium("oil-crayon drawing, thick and direct", "pastel", colourless=False),
    Medium("linocut print with hand-carved texture", "print"),
    Medium("woodblock print with visible grain", "print"),
    Medium("risograph print, grainy inks slightly off register", "print"),
    Medium("screen print in a few solid inks", "print"),
    Medium("flat vector illustration with clean edges", "flat"),
    Medium("flat isometric illustration", "flat"),
    Medium("cut-paper collage with crisp shadows", "paper", on_demand=True),
    Medium("origami-like folded paper scene", "paper", on_demand=True),
    Medium("3d render with matte clay materials", "render"),
    Medium("stylized 3d render, rounded and tactile", "render"),
    Medium("clear-line comic illustration", "comic"),
    Medium("anime-style painted scene", "comic", on_demand=True),
    Medium("inked comic panel with halftone shading", "comic", on_demand=True),
    Medium("16-bit pixel art", "pixel", on_demand=True),
    Medium("detailed pixel art with dithered gradations", "pixel", on_demand=True),
)

FINISHES = (
    "rich tactile texture",
    "clean edges and few details",
    "strong, readable silhouettes",
    "delicate fine detail",
    "bold simplification",
    "gently blurred distance",
    "crisp focus throughout",
    "subtle grain",
    "high contrast",
    "low contrast and quiet transitions",
    "intricate ornament in small areas, rest elsewhere",
    "generous restful areas",
    "one strong focal point",
    "a sense of great depth",
    "lively rhythm",
    "understated elegance",
)
