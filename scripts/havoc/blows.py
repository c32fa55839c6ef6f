"""How each fault of the plan is done to the system. Each returns a few words on what it hit."""

import random
import time
from collections.abc import Callable
from signal import SIGKILL

from scripts.havoc import broker, processes
from scripts.havoc.plan import APIS, BEATS, NODES, WORKERS, Blow
from scripts.havoc.system import System
from tests.services import Service

COPIES = 3  # of messages in each queue, and of those in somebody's hands


def strike(system: System, blow: Blow) -> str:
    """Does it, and sets it right again where that is not the system's own business."""
    return BLOWS[blow.kind](system, blow)


def _kill_member(system: System, blow: Blow) -> str:
    member = system.members[blow.target]
    killed = 1 + len(member.children())
    member.kill()
    time.sleep(blow.seconds)
    member.start()
    return f"{killed} processes"


def _kill_child(system: System, blow: Blow) -> str:
    """The parent is to notice by itself. A launcher has one child, a worker one for each task at once."""
    children = system.members[blow.target].children()
    if not children:
        return "it had no child just then"
    one = random.Random(blow.number).choice(children)
    processes.send([one], SIGKILL)
    return f"1 of {len(children)}"


def _pause(service: Service, seconds: float) -> str:
    broker.pause(service)
    try:
        time.sleep(seconds)
    finally:
        broker.resume(service)
    return ""


def _away(service: Service, seconds: float) -> str:
    service.stop()
    time.sleep(seconds)
    service.start()
    return ""


def _killed(service: Service, seconds: float) -> str:
    broker.kill(service)
    time.sleep(seconds)
    service.start()
    return ""


def _roll(system: System, blow: Blow) -> str:
    """Everything is restarted in good order, one after the other; the next API when the last one answers."""
    everybody = (*APIS, *WORKERS, *NODES, *BEATS)
    bad = [name for name in everybody if not _restart(system, name, blow.seconds)]
    _away(system.broker.service, blow.seconds)
    system.ended_badly += bad
    return f"did not end well: {', '.join(bad)}" if bad else "all ended well"


def _restart(system: System, name: str, pause_s: float) -> bool:
    member = system.members[name]
    member.terminate()
    well = member.ended_well()
    member.kill()
    member.start()
    if name in APIS:
        system.wait_for_api(name)
    time.sleep(pause_s)
    return well


BLOWS: dict[str, Callable[[System, Blow], str]] = {
    "kill worker": _kill_member,
    "kill pool child": _kill_child,
    "kill node": _kill_member,
    "kill node child": _kill_child,
    "kill api": _kill_member,
    "kill beat": _kill_member,
    "pause database": lambda system, blow: _pause(system.database, blow.seconds),
    "pause broker": lambda system, blow: _pause(system.broker.service, blow.seconds),
    "restart broker": lambda system, blow: _away(system.broker.service, blow.seconds),
    "kill broker": lambda system, blow: _killed(system.broker.service, blow.seconds),
    "flush broker": lambda system, _: system.broker.flush(),
    "cut storage": lambda system, blow: _killed(system.storage, blow.seconds),
    "pause storage": lambda system, blow: _pause(system.storage, blow.seconds),
    "duplicate messages": lambda system, _: system.broker.duplicate(COPIES),
    "deliver again": lambda system, _: system.broker.deliver_again(),
    "rolling restart": _roll,
}
