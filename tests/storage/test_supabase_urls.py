"""Signed URLs that are kept, and what their tokens say."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from backend.storage import supabase_urls
from backend.storage.supabase_urls import UPLOAD_S, SignedUrl, SteadyUrls, at, upload_lifetime


def signed(seconds: float) -> SignedUrl:
    return SignedUrl("https://there?token=t", datetime.now(UTC) + timedelta(seconds=seconds))


def token(claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"https://there/a.png?token=e30.{body}.c2ln"


def test_a_url_is_found_as_long_as_it_lives_long_enough() -> None:
    urls = SteadyUrls()
    kept = {"a": signed(100), "b": signed(10)}
    urls.keep(kept)

    assert urls.find(["a", "b", "c"], 60) == {"a": kept["a"]}
    assert urls.find(["a", "b", "c"], 5) == kept


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supabase_urls, "KEPT", 2)
    urls = SteadyUrls()
    for name in ("a", "b", "a", "c"):
        urls.keep({name: signed(100)})

    assert set(urls.find(["a", "b", "c"], 1)) == {"a", "c"}


def test_a_token_says_how_long_it_lives() -> None:
    assert upload_lifetime(token({"iat": 1000, "exp": 1600})) == 600
    assert upload_lifetime(token({"iat": 1000, "exp": 900})) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://there/a.png",
        "https://there/a.png?token=abc",
        "https://there/a.png?token=a.%F0%9F.c",
        token({"iat": 1000}),
        token({"iat": "x", "exp": None}),
        token([1]),
    ],
)
def test_a_token_that_says_nothing_lives_as_long_as_is_usual(url: str) -> None:
    assert upload_lifetime(url) == UPLOAD_S


def test_a_url_is_seen_at_another_address() -> None:
    own = "http://kong:8000"
    assert at("https://x.example.com", own, f"{own}/storage/v1/a?token=t") == (
        "https://x.example.com/storage/v1/a?token=t"
    )
