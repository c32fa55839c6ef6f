"""What saved the jobs is read from the logs: only what is new, and whole lines."""

from collections import Counter
from pathlib import Path

from scripts.havoc.load import Ledger
from scripts.havoc.recovery import Recoveries, in_words
from tests.services import free_port

LOST = "20:00:00 WARNING backend.sweep: job 1 (in_progress) was lost on its way: dispatched again\n"


def test_only_what_is_new(tmp_path: Path) -> None:
    # Given a log with two signs, and a third that is half written; and a database that is away
    log = tmp_path / "worker-1.log"
    log.write_text(LOST + "nothing\n" + LOST + LOST[:-20])
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    recoveries = Recoveries([log, tmp_path / "not-there-yet.log"], away, Ledger())

    told = "lost jobs dispatched again by the sweep"
    assert recoveries.news() == Counter({told: 2})
    assert recoveries.news() == Counter()

    with log.open("a") as more:
        more.write(LOST[-20:])
    assert recoveries.news() == Counter({told: 1})


def test_in_words() -> None:
    assert in_words(Counter({"jobs moved forward": 2, "tasks tried again": 3})) == (
        "3 tasks tried again, 2 jobs moved forward"
    )
    assert in_words(Counter()) == "nothing had to"
