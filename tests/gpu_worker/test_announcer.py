"""A node's signs of life."""

import time
from datetime import UTC, datetime

import redis

from contract.messages import Device, NodeAnnouncement
from contract.signals import Signals, connect
from gpu_worker.announcer import Announcer, Tally
from gpu_worker.fail_open import FailOpen
from tests.gpu_worker.processes import eventually
from tests.gpu_worker.valkey import Valkey


def announcer(signals: Signals, tally: Tally, every_s: float = 0.05) -> Announcer:
    def describe() -> NodeAnnouncement:
        return NodeAnnouncement(
            node="n/cpu/1",
            version="1",
            device=Device(kind="cpu", name="test"),
            models=(),
            done=tally.done,
            started_at=datetime.now(UTC),
            seen_at=datetime.now(UTC),
        )

    return Announcer(signals, FailOpen("The store", (redis.RedisError,), pause_s=0.05), describe, every_s)


def test_announces_again_and_again_and_leaves(signals: Signals) -> None:
    tally = Tally()
    thread = announcer(signals, tally)
    thread.start()
    eventually(lambda: [node.node for node in signals.nodes()] == ["n/cpu/1"])

    tally.count(made=True)
    eventually(lambda: signals.nodes()[0].done == 1)

    thread.leave()
    assert signals.nodes() == []
    assert not thread.is_alive()


def test_news_are_announced_at_once(signals: Signals) -> None:
    tally = Tally()
    thread = announcer(signals, tally, every_s=60)
    thread.start()
    eventually(lambda: len(signals.nodes()) == 1)

    tally.count(made=True)
    thread.tell_news()

    eventually(lambda: signals.nodes()[0].done == 1)
    thread.leave()


def test_goes_on_when_the_store_comes_back(own_valkey: Valkey) -> None:
    client = connect(own_valkey.url)
    signals = Signals(client)
    own_valkey.stop()
    thread = announcer(signals, Tally())
    thread.start()
    time.sleep(0.2)

    own_valkey.start()

    eventually(lambda: len(signals.nodes()) == 1)
    own_valkey.stop()
    thread.leave()  # does not hang, nor raise
    client.close()
