"""Which jobs the sweep holds for lost."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from backend.db import Database
from backend.jobs import ids, queries, store
from backend.nodes import Snapshot
from backend.sweep import _is_orphaned
from contract.messages import Device, ImageStarted, NodeAnnouncement
from tests.backend.conftest import MakeJob

NOW = datetime.now(UTC)
ALIVE, DEAD = "alive/cuda0/1", "dead/cuda0/1"


def announced(name: str) -> NodeAnnouncement:
    return NodeAnnouncement(
        node=name, version="1", device=Device(kind="cuda", name="GPU"), models=(), running=16,
        started_at=NOW, seen_at=NOW,
    )  # fmt: skip


def begin(database: Database, job_id: UUID, index: int, node: str, after_s: float) -> None:
    at = NOW + timedelta(seconds=after_s)
    started = ImageStarted(
        job_id=job_id, image_id=ids.image_id(job_id, index), index=index, run=1, node=node, attempts=1,
        started_at=at,
    )  # fmt: skip
    with database.session_scope() as session:
        assert store.image_started(session, started, at)


def dispatch(database: Database, job_id: UUID, after_s: float) -> None:
    with database.session_scope() as session:
        store.dispatched(session, job_id, NOW + timedelta(seconds=after_s))


def orphaned(database: Database, job_id: UUID) -> bool:
    """With one node alive, and busy."""
    with database.read_scope() as session:
        job = queries.get(session, job_id)
        assert job is not None
        return _is_orphaned(job, Snapshot((announced(ALIVE),), {}, reachable=True))


@pytest.mark.parametrize(("node", "is_lost"), [(ALIVE, False), (DEAD, True)])
def test_an_image_whose_node_is_gone_is_lost_though_others_are_busy(
    database: Database, make_job: MakeJob, node: str, is_lost: bool
) -> None:
    # Given a job of three images that a node has begun with
    job_id = make_job(planned=3)
    dispatch(database, job_id, 1)
    begin(database, job_id, 0, node, 2)
    # Then it is lost if that node is no more
    assert orphaned(database, job_id) is is_lost


def test_what_was_sent_again_is_not_sent_for_ever(database: Database, make_job: MakeJob) -> None:
    # Given a job that was sent again after its node had died
    job_id = make_job(planned=2)
    dispatch(database, job_id, 1)
    begin(database, job_id, 0, DEAD, 2)
    dispatch(database, job_id, 40)
    # Then it waits for its turn
    assert not orphaned(database, job_id)
    # And when that has come, and the node dies again, it is lost again
    begin(database, job_id, 0, DEAD, 50)
    assert orphaned(database, job_id)


def test_what_nobody_has_begun_is_not_orphaned(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(planned=2)
    dispatch(database, job_id, 1)
    assert not orphaned(database, job_id)
