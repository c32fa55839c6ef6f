"""Where the API listens: loopback without a key, another port only where that was left open."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import keys, serving
from backend.db import Database
from backend.migrate import migrate
from backend.serving import CannotListen, PortTaken
from backend.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'test.db'}", api_host="0.0.0.0")
    migrate(settings)
    return settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_without_a_key_it_listens_on_loopback_and_says_how_to_change_that(settings: Settings) -> None:
    host, note = serving.permitted_host(settings)

    assert host == "127.0.0.1"
    assert note is not None
    assert "fanfare keys create" in note


def test_with_a_key_it_listens_where_it_is_told(settings: Settings) -> None:
    database = Database(settings.database_url)
    with database.session_scope() as session:
        keys.create(session, "shop")
    database.close()

    assert serving.permitted_host(settings) == ("0.0.0.0", None)


def test_anonymous_by_setting_listens_where_it_is_told(settings: Settings) -> None:
    anonymous = settings.model_copy(update={"api_anonymous": True})

    assert serving.permitted_host(anonymous) == ("0.0.0.0", None)


def test_with_sign_in_it_listens_where_it_is_told(settings: Settings) -> None:
    for_users = settings.model_copy(update={"supabase_sign_in": True})

    assert serving.permitted_host(for_users) == ("0.0.0.0", None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False),
    ],
)  # fmt: skip
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert serving.is_loopback(host) is expected


def test_a_taken_port_that_was_asked_for_is_an_error(taken: int) -> None:
    with pytest.raises(PortTaken, match=f"Port {taken} .*--port"):
        serving.bind("127.0.0.1", taken, asked_for=True)


def test_a_taken_port_that_nobody_asked_for_is_passed_over(taken: int) -> None:
    with serving.bind("127.0.0.1", taken, asked_for=False) as bound:
        port = bound.getsockname()[1]

    assert taken < port < taken + 51


def test_an_address_that_is_not_ours_is_told_plainly() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        serving.bind("192.0.2.1", 0, asked_for=True)


def test_a_host_that_is_none_is_told_plainly() -> None:
    with pytest.raises(CannotListen, match="no address"):
        serving.bind("no such host", 0, asked_for=True)


def test_answers_on_a_kept_connection_come_at_once() -> None:
    """asyncio sends small answers without delay only for sockets that say what they are."""
    with serving.bind("127.0.0.1", 0, asked_for=True) as bound:
        assert bound.proto == socket.IPPROTO_TCP
