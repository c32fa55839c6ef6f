"""What the fields of a product may hold, whether they come as JSON or in a table.

Each check returns the value as it is kept, or raises `ValueError` with words for the one who sent it.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

MOST_SERIAL_NUMBER_CHARACTERS = 100
MOST_NAME_CHARACTERS = 500
MOST_URL_CHARACTERS = 2048
MOST_URLS = 200  # of one product

# Between URLs in one cell of a table. Commas and semicolons are also parts of URLs (w_100,h_200): they
# separate only before another URL, before a blank, and at the end. Each character is looked at once or twice,
# whatever comes.
_SEPARATOR = re.compile(r"[\s|]++|(?<![,;])[,;]++(?=[\s|]|https?://|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ProductFields:
    """A product, as its owner describes it: all of it checked."""

    serial_number: str
    name: str
    image_urls: tuple[str, ...]


def serial_number(text: str) -> str:
    """One line, without blanks around it."""
    return _text(text, MOST_SERIAL_NUMBER_CHARACTERS, allowed="")


def name(text: str) -> str:
    """Without blanks around it."""
    return _text(text, MOST_NAME_CHARACTERS, allowed="\n\t")


def image_urls(urls: Iterable[str]) -> tuple[str, ...]:
    """In the order that is given; what is named twice counts once."""
    distinct = dict.fromkeys(urls)
    if len(distinct) > MOST_URLS:
        raise ValueError(f"there are more than {MOST_URLS} image URLs")
    return tuple(image_url(url) for url in distinct)


def image_url(url: str) -> str:
    """An absolute URL of http or https, kept as it is. Where it leads to is looked at when it is fetched."""
    if len(url) > MOST_URL_CHARACTERS:
        raise ValueError(f"a URL has more than {MOST_URL_CHARACTERS} characters")
    if any(unicodedata.category(character)[0] in "CZ" for character in url):
        raise ValueError("a URL has blanks or control characters; write them percent-encoded")
    if split_urls(url) != [url]:  # it could not be written into a table and read again
        raise ValueError(
            "a URL has a | in it, or a comma at its end or before another URL: percent-encode it"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"not a URL: {_shortened(url)}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not a URL that begins with http:// or https://: {_shortened(url)}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not have a user name or a password in it")
    return url


def split_urls(cell: str) -> list[str]:
    """The URLs of one cell: separated by blanks, newlines, `|`, or commas and semicolons between URLs."""
    return [part for part in _SEPARATOR.split(cell) if part]


def _text(text: str, most: int, *, allowed: str) -> str:
    cleaned = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not cleaned:
        raise ValueError("must not be blank")
    if len(cleaned) > most:
        raise ValueError(f"has more than {most} characters")
    for character in cleaned:
        category = unicodedata.category(character)
        if category == "Cs" or (category == "Cc" and character not in allowed):
            raise ValueError("control characters are not allowed")
    return cleaned


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
