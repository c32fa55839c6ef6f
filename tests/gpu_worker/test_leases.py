"""What a node has in hand is nobody else's as long as it lives, and comes again soon once it doesn't."""

import time
from typing import Any

import pytest
from celery import Celery

from contract.node_access import NODE_UNACKED
from contract.queues import LEASE_S
from gpu_worker.celery_app import create_celery_app
from gpu_worker.leases import Leases
from gpu_worker.settings import Settings
from tests.gpu_worker.processes import eventually
from tests.gpu_worker.valkey import Valkey

QUEUE = "gpu.sketch"
INDEX = NODE_UNACKED["unacked_index_key"]


@pytest.fixture
def app(valkey: Valkey) -> Celery:
    return create_celery_app(Settings(broker_url=valkey.url))


def take(channel: Any) -> str:
    """One message in hand; its delivery tag."""
    message = channel.basic_get(QUEUE)
    assert message is not None
    return str(message.delivery_tag)


def test_a_lease_is_renewed_as_long_as_the_message_is_in_hand(app: Celery, valkey: Valkey) -> None:
    with app.connection_for_read() as connection, valkey.client() as store:
        channel: Any = connection.channel()
        for _ in range(2):
            app.send_task("any", queue=QUEUE)
        kept, done = take(channel), take(channel)
        # Given messages that were taken long ago, of which one is acknowledged meanwhile
        store.zadd(INDEX, dict.fromkeys([kept, done], time.time() - LEASE_S + 5))
        channel.basic_ack(done)
        # When the lease is renewed
        leases = Leases(lambda: channel, every_s=0.05)
        leases.start()
        eventually(lambda: (store.zscore(INDEX, kept) or 0) > time.time() - 5)
        # Then the other one stays away, and nobody gets the one that is in hand
        assert store.zrange(INDEX, 0, -1) == [kept]
        with app.connection_for_read() as others:
            another: Any = others.channel()
            another.qos.restore_visible(interval=1)
            assert another.basic_get(QUEUE) is None
            # But once its node is gone for a lease's length, it comes again
            leases.stop()
            leases.join()
            store.zadd(INDEX, {kept: time.time() - LEASE_S - 1})
            another.qos.restore_visible(interval=1)
            assert another.basic_get(QUEUE) is not None


def test_without_a_connection_nothing_is_renewed() -> None:
    leases = Leases(lambda: None, every_s=0.01)
    leases.start()
    time.sleep(0.05)
    assert leases.is_alive()
    leases.stop()
    leases.join(5)
    assert not leases.is_alive()
