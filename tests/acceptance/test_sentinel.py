"""Redis behind Sentinel: its master dies with jobs under way, and they end well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.signals import Signals, connect
from tests.acceptance.stack import stack
from tests.sentinel import Guarded, guarded_redis


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with guarded_redis() as made:
        yield made


def test_a_master_that_dies_amid_jobs(guarded: Guarded, tmp_path: Path) -> None:
    # Given a system with images under way
    with stack(
        tmp_path,
        FANFARE_BROKER_URL=guarded.url,
        FANFARE_SWEEP_INTERVAL_S="1",
        FANFARE_REDISPATCH_AFTER_S="4",
        FANFARE_SKETCH_DELAY_S="0.5",
        FANFARE_NODE_CONCURRENCY="2",
    ) as system:
        system.start_all()
        running = [system.submit(count=4) for _ in range(3)]
        system.until(lambda: any(i["status"] == "in_progress" for i in system.job(running[0])["images"]))
        # When the machine dies that the master and a Sentinel are on
        guarded.kill_a_machine()
        # Then what was accepted before and meanwhile is made, through the new master
        running.append(system.submit(count=2))
        for task_id in running:
            job = system.ended(task_id)
            assert job["status"] == "completed", f"{job['error']}\n{system.logs()}"
        assert guarded.role_of_replica() == "master"
        system.wait_for_node()
        with connect(guarded.url) as client:
            assert [node.state for node in Signals(client).nodes()] == ["ready"]
        # And nobody had to be started anew
        for part in system.parts:
            assert part.process.poll() is None, part.name
            assert "next start in" not in part.log.read_text(), part.log.read_text()[-3000:]
