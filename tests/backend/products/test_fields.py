"""What products may be called, and which URLs they may have."""

import pytest

from backend.products import fields
from backend.products.fields import MOST_URLS, split_urls
from backend.products.table import column_of, harmless, meant


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/1.jpg",
        "HTTP://A.EXAMPLE:8080/1.jpg?x=1&y=2#z",
        "https://cdn.example/upload/w_400,h_300,c_fill/lamp.jpg",
        "https://a.example/a;b=c;d",
        "https://a.example/,x",
        "https://bücher.example/lämpchen.jpg",
        "http://[2001:db8::1]/x.png",
        "http://10.0.0.1/x.png",  # where it leads to is looked at when it is fetched
        "https://a.example/%7C%2C",
    ],
)
def test_urls_are_kept_as_they_are_and_a_cell_gives_them_back(url: str) -> None:
    assert fields.image_url(url) == url
    for separator in (" ", "\n", "\r\n", "|", ", ", "; ", "\t|\n"):
        assert split_urls(separator.join([url, "https://b.example/", url])) == [
            url,
            "https://b.example/",
            url,
        ]


@pytest.mark.parametrize("separator", [",", ";", ",,", ";,"])
def test_a_comma_separates_before_another_url(separator: str) -> None:
    urls = ["https://a.example/w_1,h_2/x.jpg", "HTTP://b.example/y;z"]
    assert split_urls(separator.join(urls) + separator) == urls


@pytest.mark.parametrize(
    "url",
    [
        "", "lamp.jpg", "//a.example/x", "ftp://a.example/x", "data:image/png;base64,xx", "https://",
        "https:///x", "http://a.example:99999/", "https://[::1", "https://u:p@a.example/", "https://@a.example/",
        "https://a.example/ x", "https://a.example/\nx", "https://a.example/\0", "https://a.example/\u2028",
        "https://a.example/a|b", "https://a.example/x,", "https://a.example/x,https://b.example/",
        "https://a.example/\ud800", "https://a.example/" + "x" * 2048,
    ],
)  # fmt: skip
def test_what_is_no_url_or_would_not_come_back_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        fields.image_url(url)


def test_urls_count_once_and_there_are_so_many() -> None:
    many = [f"https://a.example/{number}" for number in range(MOST_URLS)]
    assert fields.image_urls(many + many) == tuple(many)
    with pytest.raises(ValueError, match="more than 200"):
        fields.image_urls([*many, "https://a.example/more"])


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+49 30 1",
        "-1",
        "@SUM(A1)",
        "＝1",
        "'=1",
        "''-1",
        "'",
        "'x",
        "x=1",
        "=",
        "'='",
        "\t=1",
        "\n=1",
    ],
)
def test_no_cell_is_a_formula_and_each_comes_back(text: str) -> None:
    cell = harmless(text)
    assert cell[0] not in "=+-@＝＋－＠\t\r\n"
    assert meant(cell) == text
    assert cell == text or cell == f"'{text}"


def test_headings_are_understood_as_people_write_them() -> None:
    for heading in ("serial number", "Serial Number", " SERIAL_NUMBER ", "serial-number", "serial  number"):
        assert column_of(heading) == "serial number"
    assert column_of("Output Image URLs") == "output image URLs"
    assert column_of("number") is None
