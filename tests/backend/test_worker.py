"""Signs of life of worker and beat: a file that is touched as long as they can work, and no longer."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.settings import Settings
from backend.worker import schedule
from contract.queues import PRUNE, SWEEP
from tests.services import RedisServer


@contextmanager
def running(home: Path, broker_url: str) -> "Iterator[subprocess.Popen[bytes]]":
    """The part that the folder is named for."""
    home.mkdir()
    environment = {
        **os.environ,
        "FANFARE_HOME": str(home),
        "FANFARE_BROKER_URL": broker_url,
        "FANFARE_ALIVE_FILE": str(home / "alive"),
        "FANFARE_SWEEP_INTERVAL_S": "0.5",
        "FANFARE_WORKER_CONCURRENCY": "1",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", home.name], env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def touched_within(file: Path, seconds: float) -> bool:
    """Whether the file is touched from now on."""
    begun, until = time.time(), time.monotonic() + seconds
    while time.monotonic() < until:
        if file.exists() and file.stat().st_mtime > begun:
            return True
        time.sleep(0.1)
    return False


def test_the_files_are_touched_while_the_broker_is_there_and_only_then(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    homes = [tmp_path / part for part in ("worker", "beat")]
    files = [home / "alive" for home in homes]
    with ExitStack() as stack:
        processes = [stack.enter_context(running(home, own_redis.url(0))) for home in homes]
        for file in files:
            assert touched_within(file, 100), (file.parent / "log").read_text()

        own_redis.service.stop()
        time.sleep(1)
        last = [file.stat().st_mtime for file in files]
        time.sleep(4)
        assert [file.stat().st_mtime for file in files] == last

        own_redis.service.start()
        assert all(touched_within(file, 100) for file in files)
        assert [process.poll() for process in processes] == [None, None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_beat_ends_also_while_it_waits_for_the_broker(
    own_redis: RedisServer, tmp_path: Path, number: signal.Signals
) -> None:
    # Given a beat in the midst of sending
    with running(tmp_path / "beat", own_redis.url(0)) as process:
        assert touched_within(tmp_path / "beat" / "alive", 100)
        with own_redis.client() as redis:
            redis.client_pause(3000)
        time.sleep(1.5)
        # When it is told to end, then it does
        process.send_signal(number)
        assert process.wait(20) == 0, (tmp_path / "beat" / "log").read_text()


def test_beat_prunes_once_a_day_at_the_time_that_is_set() -> None:
    assert set(schedule(Settings(_env_file=None))) == {"sweep"}

    entries = schedule(Settings(_env_file=None, prune_at="03:30"))

    assert {entry["task"] for entry in entries.values()} == {SWEEP, PRUNE}
    assert (entries["prune"]["schedule"].hour, entries["prune"]["schedule"].minute) == ({3}, {30})


@pytest.mark.parametrize("text", ["3:30", "24:00", "03:60", "night"])
def test_a_time_of_day_that_is_none(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, prune_at=text)
