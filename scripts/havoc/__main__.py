"""`python -m scripts.havoc`: brings up a system, loads it, breaks it by the plan, and checks what is left."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import psycopg

from gpu_worker.faults import Faults
from scripts.havoc.blows import strike
from scripts.havoc.broker import BROKERS, NoServer
from scripts.havoc.checks import check_all
from scripts.havoc.facts import collect, pending_webhooks
from scripts.havoc.load import Load
from scripts.havoc.orders import POISON, make_orders
from scripts.havoc.plan import Blow, make_plan
from scripts.havoc.receiver import Receiver, receiving
from scripts.havoc.recovery import Recoveries, in_words
from scripts.havoc.report import Report, Struck
from scripts.havoc.system import DidNotWork, System, system

SIMULATED = (
    f"slow=0.03,out_of_memory=0.04,engine_failed=0.03,crash=0.004,hang=0.002,bad_upload=0.01,upload_failed=0.01,"
    f"jitter=0.5,poison={POISON}"
)
DELAY_S = "0.05"
# So long nothing need happen: the sweep's own patience is up to 5 minutes
PATIENCE_S = 420.0
BROKER_PATIENCE_S = 60.0
TELL_EVERY_S = 15.0
SETTLE_S = 12.0  # workers look every 10 s for what nobody has acknowledged
VIOLATED, NO_SYSTEM, INTERRUPTED = 1, 2, 130  # exit codes


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 without a violation."""
    asked = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background of a shell, the first is ignored
        signal.signal(number, _as_interrupt)
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="fanfare-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(asked.seed, asked.broker)
    code = NO_SYSTEM
    try:
        code = _run(asked, folder.resolve(), report)
    except KeyboardInterrupt:
        report.say("Interrupted: all processes are ended.")
        code = INTERRUPTED
    except (NoServer, DidNotWork) as exc:
        print(f"The system did not come up: {exc}", file=sys.stderr)
    finally:
        if asked.json:
            report.write(asked.json)
        if code in (VIOLATED, NO_SYSTEM) or asked.keep:
            report.say(f"The logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _run(asked: argparse.Namespace, folder: Path, report: Report) -> int:
    load_s = asked.minutes * 60
    count = asked.faults if asked.faults is not None else max(3, round(load_s / 10))
    plan = make_plan(asked.seed, count, load_s)
    report.tell_plan(plan)
    faults = Faults.parse(f"{SIMULATED},seed={asked.seed}")
    env = {"FANFARE_SKETCH_FAULTS": str(faults), "FANFARE_SKETCH_DELAY_S": DELAY_S}
    with system(folder, asked.broker, **env) as parts, receiving() as receiver:
        report.say("Starting two API processes, two CPU workers, two beats and three nodes ...")
        parts.start_all()
        orders = make_orders(asked.seed, asked.jobs, asked.images, load_s)
        load = Load(orders, parts.urls, receiver.url)
        logs = [member.log for member in parts.members.values()]
        recoveries = Recoveries(logs, parts.database_url, load.ledger)
        load.start()
        _break(parts, plan, load, recoveries, report)
        _come_to_rest(parts, load, report)
        if report.struck:
            report.struck[-1].saved_by = in_words(recoveries.news())
        _check(parts, load, receiver, faults, report)
    report.tell_end()
    return VIOLATED if report.violations else 0


def _break(parts: System, plan: Sequence[Blow], load: Load, recoveries: Recoveries, report: Report) -> None:
    """One fault after the other, each at its time. What saved the jobs is read before the next."""
    recoveries.news()
    for blow in plan:
        while (wait_s := load.begun + blow.at_s - time.monotonic()) > 0:
            _supervise(parts, report)
            time.sleep(min(wait_s, 0.5))
        if report.struck:
            report.struck[-1].saved_by = in_words(recoveries.news())
            report.say(f"    saved by: {report.struck[-1].saved_by}")
        began = time.monotonic() - load.begun
        hit = strike(parts, blow)
        report.struck.append(Struck(blow, round(began, 1), hit))
        report.tell_blow(report.struck[-1], load.open())


def _come_to_rest(parts: System, load: Load, report: Report) -> None:
    """Until all jobs have ended and all webhooks have come; or not, and the checks will say so."""
    report.say("Waiting for the last jobs ...")
    begun = time.monotonic()
    _wait_for_none(parts, load.open, "jobs are open", PATIENCE_S, report)
    report.notes["s from the end of the plan to that of the last job"] = round(time.monotonic() - begun)
    _wait_for_none(parts, lambda: _pending(parts), "webhooks are due", PATIENCE_S, report)
    load.stop()


def _pending(parts: System) -> int:
    try:
        return pending_webhooks(parts.database_url)
    except psycopg.OperationalError:
        return 1  # at least


def _supervise(parts: System, report: Report) -> None:
    for name in parts.supervise():
        report.say(f"  {name} had ended by itself, and is started again")


def _wait_for_none(
    parts: System, count: Callable[[], int], what: str, patience_s: float, report: Report
) -> None:
    """Returns when there are none any more, or when their number hasn't changed for too long."""
    before, changed = -1, time.monotonic()
    told = changed
    while (now := count()) > 0:
        _supervise(parts, report)
        if now != before:
            before, changed = now, time.monotonic()
        if time.monotonic() - changed > patience_s:
            report.say(f"Nothing has changed for {patience_s:.0f} s: {now} {what}")
            return
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            report.say(f"  {now} {what}")
        time.sleep(0.3)


def _check(parts: System, load: Load, receiver: Receiver, faults: Faults, report: Report) -> None:
    """Takes the beats away, lets what died with its worker come again, and looks at everything."""
    parts.stop_beats()
    late = parts.broker.deliver_again()
    report.say(f"What nobody has acknowledged comes again, long after its job has ended: {late}")
    if not late.startswith("0 "):
        time.sleep(SETTLE_S)
    _wait_for_none(
        parts, lambda: sum(parts.broker.left().values()), "messages are left", BROKER_PATIENCE_S, report
    )
    report.say("Looking at every job, image, event, webhook and object ...")
    facts = collect(
        load, parts.database_url, parts.files, parts.broker.left(), receiver.url, list(receiver.accepted)
    )
    facts.ended_badly = parts.end()
    facts.left_running = parts.left_running()
    report.checks = check_all(facts, faults)
    ends = Counter(seen.row.get("status", "lost") for seen in facts.seen)
    report.notes |= {f"jobs {status}": count for status, count in sorted(ends.items())}
    report.notes |= {f"answers {what}": count for what, count in sorted(facts.answers.items())}
    report.notes["webhooks"] = len(facts_ids(receiver))


def facts_ids(receiver: Receiver) -> set[str]:
    """Ids of all webhooks that came."""
    return {delivery.webhook_id for delivery in receiver.accepted}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Breaks a whole system by a plan while it works, and checks that nothing was lost.",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the plan, the load and the simulator (default 1)"
    )
    parser.add_argument("--jobs", type=int, default=300, help="default 300")
    parser.add_argument("--images", type=int, default=4, help="in each job (default 4)")
    parser.add_argument(
        "--minutes", type=float, default=4, help="that jobs come and faults happen (default 4)"
    )
    parser.add_argument("--faults", type=int, help="how many (default: one in 10 s)")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="redis")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes faults and checks there as well")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keeps the logs of all parts there")
    return parser


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
