"""One server per home, and others find it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.embedded.home import AlreadyRunning, Home, HomeUnusable

HOLDER = """
import sys, time
from pathlib import Path
from backend.embedded.home import Home
home = Home(Path(sys.argv[1]))
home.prepare()
with home.lock():
    home.announce("http://127.0.0.1:8123")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def holder(home: Home) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_home_is_for_its_owner_alone(home: Home) -> None:
    assert home.path.stat().st_mode & 0o077 == 0


def test_a_home_that_can_t_be_made_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HomeUnusable, match="FANFARE_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_second_server_is_refused_and_told_where_the_first_one_is(
    home: Home, holder: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(AlreadyRunning, match=rf"http://127.0.0.1:8123 \(process {holder.pid}\)"), home.lock():
        pass


def test_a_running_server_is_found(home: Home, holder: "subprocess.Popen[str]") -> None:
    running = home.running()

    assert running is not None
    assert (running.url, running.pid) == ("http://127.0.0.1:8123", holder.pid)


def test_what_a_killed_server_left_behind_is_ignored(home: Home, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    assert (home.path / "server.json").exists()

    assert home.running() is None
    with home.lock():
        running = home.running()
        assert running is not None
        assert running.url == ""
        assert running.pid == os.getpid()


def test_an_orderly_end_leaves_nothing_to_find(home: Home) -> None:
    with home.lock():
        home.announce("http://127.0.0.1:8123")

    assert home.running() is None
    assert not (home.path / "server.json").exists()


def test_a_failure_inside_gives_the_lock_back(home: Home) -> None:
    with pytest.raises(RuntimeError, match="inside"), home.lock():
        raise RuntimeError("inside")

    with home.lock():
        pass


def test_while_the_guardian_of_a_killed_server_works_the_next_one_waits(home: Home) -> None:
    # Given a lock that outlives its server, in the hands of a guardian
    code = HOLDER.replace("time.sleep(600)", "")
    with home.lock() as lock:
        guardian = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (home.path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:8123", "pid": dead.pid}))
    assert home.held()
    assert home.running() is None

    # When the next server starts
    following = subprocess.Popen(
        [sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)

    # Then it has waited, and goes on when the guardian has ended
    assert following.poll() is None
    guardian.communicate(b"\n")
    output, _ = following.communicate(timeout=60)
    assert output == "held\n"
