"""What saved the jobs: read from logs, database and clients, between one fault and the next."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import psycopg

from scripts.havoc.load import Ledger

# What a line of a log means, and how it is told.
SIGNS: dict[str, str] = {
    r"was lost on its way: dispatched again": "lost jobs dispatched again by the sweep",
    r"was accepted and never dispatched": "jobs dispatched by the sweep that the broker had not got",
    r"waits for the broker": "jobs or webhooks kept until the broker was back",
    r"upload URLs had expired; signed anew": "uploads signed anew",
    r"could not be acknowledged": "messages delivered again after a lost connection",
    r"Connection to broker lost": "consumers reconnected",
    r"WorkerLostError|exited prematurely": "tasks of lost pool children delivered again",
    r"The node on \S+ ended": "nodes started again by their launcher",
    r"has given no sign for": "hung engines ended by their vigil",
    r"webhook \S+ failed": "webhooks put off to be tried again",
    r"retry: Retry in|\] retry:": "tasks tried again",
    r"the broker is away; the next sweep": "sweeps put off",
    r"passed over for long": "jobs moved forward",
    r"Restor\w+ \d+ unacknowledged": "workers that handed back what they had taken",
}
DEFECTS = re.compile(r"A defect of the node|NotRegistered|is not one$|UniqueViolation|Deadlock", re.M)


def read_signs(text: str) -> Counter[str]:
    """How often each sign is in a piece of a log."""
    return Counter({told: len(found) for sign, told in SIGNS.items() if (found := re.findall(sign, text))})


class Recoveries:
    """Tells what is new since it was asked last."""

    def __init__(self, logs: Iterable[Path], database_url: str, ledger: Ledger) -> None:
        self._logs = list(logs)
        self._database_url = database_url
        self._ledger = ledger
        self._read: dict[Path, int] = {}
        self._before: Counter[str] = Counter()

    def news(self) -> Counter[str]:
        """What has been done since, by what it was."""
        found = read_signs("".join(map(self._new_text, self._logs)))
        totals = self._totals()
        found.update({told: count - self._before[told] for told, count in totals.items()})
        self._before |= totals
        return +found

    def _new_text(self, log: Path) -> str:
        """Whole lines only: a half one is read next time."""
        if not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(self._read.get(log, 0))
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read[log] = self._read.get(log, 0) + len(whole)
        return whole.decode("utf-8", "replace")

    def _totals(self) -> Counter[str]:
        counts = {"requests sent again by clients": self._ledger.not_answered()}
        try:
            with psycopg.connect(self._database_url, connect_timeout=3) as connection:
                counts |= _counted(connection)
        except psycopg.OperationalError:
            counts |= {told: self._before[told] for told in QUESTIONS}
        return Counter(counts)


QUESTIONS: dict[str, str] = {
    "images begun again by a node": "SELECT sum(greatest(attempts - 1, 0)) FROM image_generations",
    "webhooks sent again": "SELECT sum(greatest(attempts - 1, 0)) FROM webhook_deliveries",
}


def _counted(connection: "psycopg.Connection[tuple[int | None, ...]]") -> Mapping[str, int]:
    return {told: int((connection.execute(query).fetchone() or (0,))[0] or 0)
            for told, query in QUESTIONS.items()}  # fmt: skip


def in_words(news: Counter[str]) -> str:
    """For the table."""
    return ", ".join(f"{count} {told}" for told, count in news.most_common()) or "nothing had to"
