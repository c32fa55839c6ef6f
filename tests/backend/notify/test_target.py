"""What a URL must look like."""

import pytest

from backend.errors import TargetRefused
from backend.notify.target import Target, parse_target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "example.com", "/")),
        (
            "HTTPS://EXAMPLE.com:443/a b#x".replace(" ", "%20"),
            Target("https", "example.com", 443, "example.com", "/a%20b"),
        ),
        (
            "https://example.com:8443/h?k=ü",
            Target("https", "example.com", 8443, "example.com:8443", "/h?k=%C3%BC"),
        ),
        (
            "https://bücher.example/",
            Target("https", "xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/"),
        ),
        ("https://hooks_1.example/@me", Target("https", "hooks_1.example", 443, "hooks_1.example", "/@me")),
        (
            "https://[2606:4700::1111]:8443/",
            Target("https", "2606:4700::1111", 8443, "[2606:4700::1111]:8443", "/"),
        ),
        ("https://example.com?to=a@b", Target("https", "example.com", 443, "example.com", "/?to=a@b")),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443, "8.8.8.8", "/")),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse_target(url, allow_http=False) == target


def test_plain_http_only_where_it_is_allowed() -> None:
    with pytest.raises(TargetRefused, match="https://"):
        parse_target("http://example.com/", allow_http=False)
    assert parse_target("http://example.com/", allow_http=True).port == 80


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://good.example\\@127.0.0.1/",
        "https://good.example\\.evil.example/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Injected: 1",
        "https://exam\tple.com/",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:6379/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://a..b/",
        "https://-a.example/",
        "https://exa%6dple.com/",
        "https://example.com./",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
        "https://example.com/" + "a" * 2048,
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        "https://[v1.x]/",
        # spellings that libc takes for 127.0.0.1
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.0x1/",
        "https://017700000001/",
        "https://１２７.0.0.1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。1/",
    ],
)
def test_what_is_no_proper_url_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        parse_target(url, allow_http=True)
