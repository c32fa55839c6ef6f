"""URLs that last: by a CDN where there is one, else by a signature that is good for one image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from backend import media_urls
from backend.errors import SignatureInvalid
from backend.resources import Resources
from backend.settings import Settings

KEY = "products/1/2/abc.webp"


def parts_with(folder: Path, **values: Any) -> Resources:
    nowhere = "redis://127.0.0.1:1/0"
    settings = Settings(
        _env_file=None, home=folder, database_url="sqlite://", broker_url=nowhere, result_url=nowhere,
        public_url="https://api.example.com", **values,
    )  # fmt: skip
    return Resources.open(settings)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Resources]:
    parts = parts_with(tmp_path)
    yield parts
    parts.close()


def test_a_cdn_has_no_signatures(tmp_path: Path) -> None:
    parts = parts_with(tmp_path, media_url="https://cdn.example.com/fanfare/")
    assert media_urls.media_url(parts, KEY) == f"https://cdn.example.com/fanfare/{KEY}"
    parts.close()


def test_the_signature_is_one_images_and_stays(parts: Resources, tmp_path: Path) -> None:
    url = media_urls.media_url(parts, KEY)
    assert url.startswith(f"https://api.example.com/v1/media/{KEY}?signature=")
    [signature] = parse_qs(urlsplit(url).query)["signature"]
    media_urls.verify(parts, KEY, signature)
    for key, given in ((KEY.replace("abc", "abd"), signature), (KEY, signature[:-2]), (KEY, "")):
        with pytest.raises(SignatureInvalid):
            media_urls.verify(parts, key, given)
    again = parts_with(tmp_path)  # another process, another day
    assert media_urls.media_url(again, KEY) == url
    again.close()
