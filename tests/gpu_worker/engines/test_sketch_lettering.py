"""Titles of the sketch engine: any script, any length, to be read on any ground, never a box."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gpu_worker.engines.base import ImageRequest, Picture
from gpu_worker.engines.sketch import SketchEngine
from gpu_worker.engines.sketch.canvas import Canvas
from gpu_worker.engines.sketch.colour import Colour
from gpu_worker.engines.sketch.dice import Dice
from gpu_worker.engines.sketch.lettering import bidi, clusters
from gpu_worker.engines.sketch.lettering.fitting import balanced, fit
from gpu_worker.engines.sketch.lettering.fonts import FontStack, packaged
from gpu_worker.engines.sketch.lettering.setting import CONTRAST, NOT_COVERED, set_title
from gpu_worker.engines.sketch.lettering.shaping import coverage, settable, shape
from gpu_worker.engines.sketch.reading import read
from gpu_worker.engines.sketch.scenes.view import View
from tests.gpu_worker.engines.watching import Recorder

FONTS = FontStack(list(packaged()))  # what comes with the packages, wherever this runs

PANGRAM = "the quick brown fox jumps over the lazy dog"
SCRIPTS = {
    "Latin": "The Keeper's Library — déjà vu, Žižek, Việt",
    "Cyrillic": "Ночь над морем",
    "Greek": "Ταξίδι στη θάλασσα",
    "Arabic": "رحلة في الصحراء",
    "Persian": "کتابخانهٔ فانوس دریایی",
    "Hebrew": "ספריית המגדלור",
    "Devanagari": "क्षितिज की कहानियाँ",
    "Bengali": "কবিতার দিন",
    "Tamil": "தமிழ் விண்வெளி",
    "Telugu": "తెలుగు కథలు",
    "Thai": "ทะเลสาบในยามค่ำคืน",
    "Lao": "ສະບາຍດີ",
    "Khmer": "សួស្តីពិភពលោក",
    "Myanmar": "မင်္ဂလာပါ",
    "Georgian": "ქართული ენა",
    "Ethiopic": "ሰላም ለዓለም",
    "Chinese": "在暴风雨中的灯塔守护者的图书馆",
    "Traditional": "暴風雨中的燈塔圖書館",
    "Japanese": "深夜の図書館で、静かに本を読む。",
    "Korean": "오늘의 커피와 책",
    "symbols": "Stars ★ hearts ❤️ suns ☀ → ½ €",
}


@pytest.mark.parametrize("title", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_each_script_is_covered_shaped_and_drawn(title: str) -> None:
    line = shape(title, FONTS)
    ink = coverage(line, 40, 1600, 90, 20, 60)

    assert settable(title, FONTS) == title
    assert all(glyph.index != 0 for glyph in line.glyphs)  # 0 is the box
    assert line.width > 2
    assert ink[:, 20 : 20 + int(line.width * 40)].mean() > 0.04
    assert ink[:, 30 + int(line.width * 40) :].max() == 0


def test_letters_join_and_conjuncts_form() -> None:
    apart, joined = (shape(text, FONTS) for text in ("س ل ا م", "سلام"))

    assert {glyph.index for glyph in apart.glyphs} != {glyph.index for glyph in joined.glyphs}
    assert len(shape("क्ष", FONTS).glyphs) < len("क्ष")


@pytest.mark.parametrize(
    ("logical", "visual"),
    [
        ("abc", "abc"),
        ("אבג", "גבא"),
        ("abc אבג def", "abc גבא def"),
        ("אבג abc דהו", "והד abc גבא"),
        ("שנת 2026 טובה", "הבוט 2026 תנש"),
        ("אבג 1,5 דהו", "והד 1,5 גבא"),
        ("price: 5 שח", "price: 5 חש"),
        ("(אבג)", "(גבא)"),
    ],
)
def test_mixed_directions_are_drawn_in_unicodes_order(logical: str, visual: str) -> None:
    level = bidi.levels(logical, bidi.direction(logical))
    drawn = ""
    for start, end, run in bidi.visual_runs(level):
        part = logical[start:end]
        drawn += part[::-1].translate(str.maketrans("()", ")(")) if run % 2 else part

    assert drawn == visual


@pytest.mark.parametrize(
    ("title", "cleaned"),
    [
        ("  a \t b\n\nc ", "a b c"),
        ("a\x00b\x1b[0m", "a b [0m"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\ud800x", "\ufffdx"),
        ("\u200b\u2066", ""),
    ],
)
def test_what_cannot_be_set_is_taken_out(title: str, cleaned: str) -> None:
    assert clusters.clean(title) == cleaned


def test_clusters_stay_whole() -> None:
    assert clusters.clusters("e\u0301क्षि👩‍🚀🇫🇷🇩🇪") == ["e\u0301", "क्षि", "👩‍🚀", "🇫🇷", "🇩🇪"]


def test_chinese_and_japanese_break_without_spaces_but_not_before_a_full_stop() -> None:
    pieces = clusters.pieces("本を読む。「夜」")

    assert pieces == ["本", "を", "読", "む。", "「夜」"]
    assert clusters.pieces("one two-three") == ["one ", "two-", "three"]


def test_lines_are_balanced() -> None:
    parts = [(word + " ", len(word) + 1.0) for word in PANGRAM.split()]

    lines = balanced(parts, 3)

    assert len(lines) == 3
    assert max(map(len, lines)) - min(map(len, lines)) <= 5


@pytest.mark.parametrize(
    "title", ["Go", SCRIPTS["Chinese"], "word " * 60, "x" * 300, SCRIPTS["Thai"] * 9, "字" * 380]
)
@pytest.mark.parametrize("area", [(1800, 50), (50, 1800), (54, 54), (500, 300)])
def test_every_title_fits_its_area(title: str, area: tuple[int, int]) -> None:
    width, height = area

    block = fit(clusters.clean(title), FONTS, width=width, height=height, largest=90, smallest=8)

    assert block.width <= width * 1.01
    assert block.height <= height * 1.01
    assert block.size <= 90


def test_a_title_that_is_too_long_ends_in_an_ellipsis() -> None:
    block = fit("word " * 200, FONTS, width=300, height=80, largest=40, smallest=12)

    dots = shape("…", FONTS).glyphs[0].index
    assert block.shortened
    assert block.lines[-1].glyphs[-1].index == dots


@pytest.mark.parametrize("ground", ["white", "middle", "black", "stripes", "noise"])
@pytest.mark.parametrize("scene", ["sea", "mesh"])
def test_letters_stand_out_from_any_ground(ground: str, scene: str) -> None:
    view = flat(ground, scene)

    became = set_title(view, "HHHH HHHH", FONTS)

    assert became == "set"
    strip = slice(185, 226) if scene == "sea" else slice(98, 142)  # where the one line comes to stand
    of_letters, of_ground = apart(luminance(view.canvas.rgb)[strip])
    bright, dark = max(of_letters, of_ground), min(of_letters, of_ground)
    assert (bright + 0.05) / (dark + 0.05) >= CONTRAST * 0.97


def flat(ground: str, scene: str) -> View:
    dice = Dice(ground)
    view = View(Canvas(320, 240), replace(read("teal palette", dice), scene=scene), dice)
    tones = {
        "white": np.ones((240, 320)),
        "middle": np.full((240, 320), 0.5),
        "black": np.zeros((240, 320)),
        "stripes": np.tile(np.arange(320) % 40 > 20, (240, 1)).astype(float),
        "noise": dice.array().uniform(0, 1, (240, 320)),
    }
    view.canvas.rgb[:] = tones[ground][..., None]
    return view


def apart(strip: NDArray[np.float64]) -> tuple[float, float]:
    """The letters' luminance, and the ground's where it comes closest (one pixel in fifty is let off)."""
    pale = float(np.median(strip[:, -12:])) < 0.4
    inside = strip > 0.9 if pale else strip < 0.07
    near = Image.fromarray((inside * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(7))
    ground = strip[(np.asarray(near) == 0) & columns_of(inside)]
    assert inside.sum() > 200
    assert ground.size > 200
    return float(np.median(strip[inside])), float(np.percentile(ground, 98 if pale else 2))


def columns_of(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Everything between the first letter and the last."""
    columns = np.where(inside.any(axis=0))[0]
    mask = np.zeros_like(inside)
    mask[:, columns.min() : columns.max()] = True
    return mask


def luminance(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    clipped = rgb.clip(0, 1).astype(np.float64)
    linear = np.where(clipped <= 0.04045, clipped / 12.92, ((clipped + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def paint(title: str | None, engine: SketchEngine | None = None) -> Picture:
    asked = ImageRequest("one", "sketch", "the sea at dusk", 240, 160, 4, title=title)
    (outcome,) = (engine or SketchEngine(fonts=FONTS)).generate([asked], Recorder())
    assert isinstance(outcome, Picture)
    return outcome


def changed(first: Image.Image, second: Image.Image) -> float:
    return float((np.asarray(first) != np.asarray(second)).any(axis=-1).mean())


def test_a_title_changes_the_picture_and_its_words_change_the_title() -> None:
    bare, one, other = paint(None), paint("Low tide"), paint("High tide")

    assert changed(bare.image, one.image) > 0.05
    assert 0.002 < changed(one.image, other.image) < 0.6
    assert one.made_with["title"] == "set"


@pytest.mark.parametrize("title", ["", "   ", "\n\u200b\u202e"])
def test_an_empty_title_sets_nothing(title: str) -> None:
    assert paint(title).image.tobytes() == paint(None).image.tobytes()
    assert "title" not in paint(title).made_with


def test_without_any_font_the_picture_comes_without_its_title_and_says_so() -> None:
    fontless = SketchEngine(fonts=FontStack([]))

    picture = paint("Low tide", fontless)

    assert picture.image.tobytes() == paint(None).image.tobytes()
    assert picture.made_with["title"] == NOT_COVERED


def test_what_no_font_covers_is_left_out_and_never_drawn_as_a_box() -> None:
    with_gap, without = paint("Low \U000f1234tide 🦤"), paint("Low tide")

    assert with_gap.image.tobytes() == without.image.tobytes()
    assert without.made_with["title"] == "set"
    assert str(with_gap.made_with["title"]).startswith("set")
    assert paint("🦤").made_with["title"] == NOT_COVERED


def test_a_file_that_is_no_font_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"\x00\x01\x00\x00 not a font")
    (tmp_path / "gone.otf").symlink_to(tmp_path / "nowhere")

    assert FontStack([], [tmp_path]).cover("a") is None


def test_the_palette_does_not_depend_on_the_title() -> None:
    assert isinstance(flat("white", "sea").scheme.palette.base, Colour)
    assert paint("Low tide").made_with["palette"] == paint(None).made_with["palette"]
