"""The fonts at hand: those that came with packages first, then those of the system.

Nothing is downloaded, and no system font is needed. What the packages cover:
- pymupdf-fonts (4 MB): FiraGO for Latin, Cyrillic, Greek, Arabic, Hebrew, Devanagari, Thai, Georgian; symbols
- justmytype-intl-* (1 MB each): Bengali, Tamil, Telugu; Lao, Khmer, Myanmar; Ethiopic
- noto-cjk-sans-otc (16 MB): Chinese, Japanese, Korean
"""

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import uharfbuzz as hb  # type: ignore[import-untyped]

_BOLD = 700.0
_SYNTHETIC_BOLD = 0.028  # of the em, for families that have no bold here
_FONT_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_MAX_SYSTEM_FONTS = 3000
_OUTLINES = {"glyf", "CFF ", "CFF2"}
_PAINTED = {"COLR", "CBDT", "sbix", "SVG "}  # colour fonts: their outlines are empty or missing

_FIRA = ("pymupdf_fonts.FiraGO_Bold", "pymupdf_fonts.NotoSans_Bold")
_SYMBOLS = (
    "pymupdf_fonts.NotoSansSymbols_Regular",
    "pymupdf_fonts.NotoSansSymbols2_Regular",
    "pymupdf_fonts.NotoSansMath_Regular",
)
_FOLDERS = (
    "justmytype_intl_south_asia",
    "justmytype_intl_sea",
    "justmytype_intl_africa",
    "noto_cjk_sans_otc",
)


class Typeface:
    """One font, opened when it is first asked."""

    def __init__(self, name: str, source: bytes | Path, index: int = 0, *, bold: bool = True) -> None:
        self.name = name
        self._source = source
        self._index = index
        self._bold = bold

    @cached_property
    def face(self) -> hb.Face:
        """The font as HarfBuzz sees it. A file is mapped, not read."""
        blob = (
            hb.Blob(self._source)
            if isinstance(self._source, bytes)
            else hb.Blob.from_file_path(str(self._source))
        )
        return hb.Face(blob, self._index)

    @cached_property
    def font(self) -> hb.Font:
        """At one unit per em unit, bold."""
        font = hb.Font(self.face)
        if any(axis.tag == "wght" for axis in self.face.axis_infos):
            font.set_variations({"wght": _BOLD})
        elif not self._bold:
            amount = _SYNTHETIC_BOLD
            font.synthetic_bold = (amount, amount, False)
        return font

    @cached_property
    def characters(self) -> frozenset[int]:
        """Every code point that it has an outline for; none for a file that is no such font."""
        try:
            tags = set(self.face.table_tags)
        except (hb.HarfBuzzError, OSError):  # a system font that can't be read is no font
            return frozenset()
        if not tags & _OUTLINES or tags & _PAINTED or self.face.upem <= 0:
            return frozenset()
        return frozenset(self.face.unicodes)

    def covers(self, text: str) -> bool:
        """It can write all of `text`, but for characters that are not drawn."""
        return all(ord(char) in self.characters or invisible(char) for char in text)


def invisible(char: str) -> bool:
    """Joiners and variation selectors: they change their neighbours and have no glyph of their own."""
    return char in "\u200c\u200d\u034f" or "\ufe00" <= char <= "\ufe0f"


class FontStack:
    """Fonts in order of preference; answers which of them writes a piece of text."""

    def __init__(self, typefaces: Sequence[Typeface], folders: Sequence[Path] = ()) -> None:
        self._packaged = list(typefaces)
        self._folders = list(folders)

    @classmethod
    def usual(cls) -> "FontStack":
        """What came with the packages, then what the system has."""
        return cls(list(packaged()), system_folders())

    @cached_property
    def _system(self) -> list[Typeface]:
        """The system's fonts, looked for only when the packaged ones don't do."""
        found = [path for folder in self._folders for path in _font_files(folder)]
        return [
            Typeface(path.stem, path, bold="bold" in path.stem.lower()) for path in found[:_MAX_SYSTEM_FONTS]
        ]

    def cover(self, text: str, preferred: Typeface | None = None) -> Typeface | None:
        """The first font that writes all of `text` (one cluster or word); `preferred` where it can."""
        if preferred is not None and preferred.covers(text):
            return preferred
        for typeface in self._packaged:
            if typeface.covers(text):
                return typeface
        return next((typeface for typeface in self._system if typeface.covers(text)), None)


def packaged() -> Iterator[Typeface]:
    """The fonts that came with Python packages, as far as they are installed."""
    yield from filter(None, map(_from_module, _FIRA))
    for package in _FOLDERS:
        try:
            folder = Path(str(files(package)))
        except ModuleNotFoundError:
            continue
        for path in _font_files(folder):
            yield Typeface(path.stem.partition("[")[0], path, bold=False)
    yield from filter(None, map(_from_module, _SYMBOLS))


def _from_module(name: str) -> Typeface | None:
    try:
        data: bytes = import_module(name).fontbuffer
    except ModuleNotFoundError:
        return None
    return Typeface(name.rpartition(".")[2], data)


def _font_files(folder: Path) -> list[Path]:
    """Font files under a folder in a settled order: sans before serif, bold before regular."""
    found: list[Path] = []
    for root, _, names in os.walk(folder):
        found.extend(Path(root, name) for name in names if name.lower().endswith(_FONT_SUFFIXES))
    return sorted(found, key=_preference)


def _preference(path: Path) -> tuple[bool, bool, bool, bool, str]:
    name = path.stem.lower()
    slanted = "italic" in name or "oblique" in name
    return slanted, "mono" in name, "serif" in name and "sans" not in name, "bold" not in name, str(path)


def system_folders() -> list[Path]:
    """Where this system keeps its fonts."""
    home = Path.home() if "HOME" in os.environ or sys.platform == "win32" else Path("/")
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    if sys.platform == "win32":
        windows = Path(os.environ.get("WINDIR", r"C:\Windows"))
        return [windows / "Fonts", home / "AppData/Local/Microsoft/Windows/Fonts"]
    return [
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".local/share/fonts",
        home / ".fonts",
    ]
