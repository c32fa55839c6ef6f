"""Cuts a title into what the eye takes for characters, and says where a line may end."""

import re
import unicodedata

_JOINER = "\u200d"
_NO_START = frozenset(
    "、。,.,.!?!?:;:;)」』】〕〉》)]}’”ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ々〜~…‥・%°"
)
_NO_END = frozenset("「『【〔〈《([{‘“(¥$£€#")
_KEEP = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(title: str) -> str:
    """The title without what can't be set: control and formatting characters, runs of white space."""
    text = unicodedata.normalize("NFC", title.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    kept = [
        char if char in "\u200c\u200d" or unicodedata.category(char) not in _KEEP else " " for char in text
    ]
    return re.sub(r"\s+", " ", "".join(kept)).strip()


def clusters(text: str) -> list[str]:
    """Grapheme clusters, near enough: marks, joiners, selectors, Indic conjuncts and emoji stay whole."""
    result: list[str] = []
    for char in text:
        if result and (_extends(char) or _binds(result[-1], char)):
            result[-1] += char
        else:
            result.append(char)
    return result


def _extends(char: str) -> bool:
    return (
        unicodedata.category(char) in ("Mn", "Mc", "Me")
        or char in "\u200c\u200d"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
    )


def _binds(cluster: str, char: str) -> bool:
    """After a joiner, after a virama before a letter, and between two regional indicators."""
    last = cluster[-1]
    if last == _JOINER:
        return True
    if unicodedata.combining(last) == 9:  # the combining class of viramas
        return unicodedata.category(char) == "Lo"
    flags = "\U0001f1e6" <= char <= "\U0001f1ff" and all(
        "\U0001f1e6" <= one <= "\U0001f1ff" for one in cluster
    )
    return flags and len(cluster) == 1


def pieces(text: str) -> list[str]:
    """The parts between which a line may end; a part keeps the space that follows it.

    Words end at spaces and after hyphens; Chinese and Japanese end anywhere but where their typography
    forbids it. Thai, Lao, Khmer and Myanmar have no spaces either, but finding their words takes a
    dictionary: they end at spaces, or between clusters where a phrase is too long (`soft_pieces`).
    """
    result: list[str] = []
    for cluster in clusters(text):
        if result and not _may_break(result[-1], cluster):
            result[-1] += cluster
        else:
            result.append(cluster)
    return result


def _may_break(before: str, after: str) -> bool:
    last, first = before[-1], after[0]
    if first == " ":
        return False
    if last == " ":
        return True
    if first in _NO_START or last in _NO_END:
        return False
    if _unspaced(first) or _unspaced(last):
        return True
    return last in "-–—/" and first.isalpha()


def _unspaced(char: str) -> bool:
    return (
        "\u3000" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
        or "\U00020000" <= char <= "\U0003ffff"
    )  # fmt: skip


def soft_pieces(piece: str) -> list[str]:
    """Where a piece that is too long for a line may be cut for want of anything better."""
    return clusters(piece)
