"""What is told: the plan, the faults as they come, and two tables at the end."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.havoc.checks import Check
from scripts.havoc.plan import Blow

SHOWN = 12  # violations of one check; the file has all


@dataclass
class Struck:
    """A fault that was done, and what came of it."""

    blow: Blow
    began_s: float  # since the load's beginning
    hit: str
    saved_by: str = ""


@dataclass
class Report:
    """Grows as the run goes on."""

    seed: int
    broker: str
    console: Console = field(default_factory=lambda: Console(highlight=False))
    struck: list[Struck] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """One line, at once, with the seconds since the beginning."""
        self.console.print(f"{time.monotonic() - self.begun:6.1f}  {text}", markup=False, soft_wrap=True)

    def tell_blow(self, struck: Struck, open_jobs: int) -> None:
        """As soon as it is done."""
        blow = struck.blow
        for_s = f" for {blow.seconds:.1f} s" if blow.seconds else ""
        hit = f": {struck.hit}" if struck.hit else ""
        self.say(f"{blow.kind} ({blow.target}){for_s}{hit}; {open_jobs} jobs are open")

    def tell_plan(self, plan: Sequence[Blow]) -> None:
        """Before it begins."""
        table = Table("at", "fault", "target", "for", title=f"The plan of seed {self.seed}", box=None)
        for blow in plan:
            table.add_row(
                f"{blow.at_s:.1f} s", blow.kind, blow.target, f"{blow.seconds:.1f} s" if blow.seconds else ""
            )
        self.console.print(table)

    def tell_end(self) -> None:
        """Faults and checks."""
        faults = Table(
            "at", "fault", "target", "hit", "what saved the jobs", title="Faults", show_lines=False
        )
        for one in self.struck:
            faults.add_row(f"{one.began_s:.1f} s", one.blow.kind, one.blow.target, one.hit, one.saved_by)
        self.console.print(faults)
        checks = Table("check", "looked at", "violations", title="Checks")
        for check in self.checks:
            wrong = len(check.violations)
            checks.add_row(check.name, str(check.looked_at), f"[red]{wrong}[/red]" if wrong else "0")
        self.console.print(checks)
        for check in self.checks:
            for violation in check.violations[:SHOWN]:
                self.say(f"VIOLATION, {check.name}: {violation}")
            if len(check.violations) > SHOWN:
                self.say(f"... and {len(check.violations) - SHOWN} more of them")
        self.say(", ".join(f"{count} {what}" for what, count in self.notes.items()))

    @property
    def violations(self) -> int:
        return sum(len(check.violations) for check in self.checks)

    def write(self, file: Path) -> None:
        """All of it, for programs."""
        found = {
            "seed": self.seed, "broker": self.broker, "violations": self.violations, "notes": self.notes,
            "faults": [asdict(one) for one in self.struck], "checks": [asdict(one) for one in self.checks],
        }  # fmt: skip
        file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
