"""What the doctor finds, and how it is shown."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.console import Console
from rich.markup import escape


class Level(StrEnum):
    """How good or bad it is."""

    OK = "ok"
    OFF = "off"  # not running, which is no fault
    WARN = "warn"  # works, but not as well or as safely as it could
    FAIL = "fail"  # doesn't work


STYLES = {Level.OK: "green", Level.OFF: "dim", Level.WARN: "yellow", Level.FAIL: "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. Holds no secret."""

    level: Level
    about: str
    text: str
    mend: str = ""  # what to do; empty where all is well

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def ok(about: str, text: str) -> Finding:
    return Finding(Level.OK, about, text)


def off(about: str, text: str = "not running: `fanfare up` starts it") -> Finding:
    return Finding(Level.OFF, about, text)


def warn(about: str, text: str, mend: str) -> Finding:
    return Finding(Level.WARN, about, text, mend)


def fail(about: str, text: str, mend: str) -> Finding:
    return Finding(Level.FAIL, about, text, mend)


def show(findings: Iterable[Finding], console: Console) -> None:
    """One line each, and below it what to do."""
    counts = dict.fromkeys(Level, 0)
    for finding in findings:
        counts[finding.level] += 1
        level = f"[{STYLES[finding.level]}]{finding.level:<4}[/]"
        console.print(f"{level}  {finding.about:<13} {escape(finding.text)}", highlight=False, soft_wrap=True)
        if finding.mend:
            console.print(f"{'':<20}-> {escape(finding.mend)}", highlight=False, soft_wrap=True)
    console.print(_verdict(counts))


def _verdict(counts: dict[Level, int]) -> str:
    if counts[Level.FAIL]:
        return f"\n[red]{counts[Level.FAIL]} to mend.[/]"
    if counts[Level.WARN]:
        return f"\n[yellow]It works; {counts[Level.WARN]} could be better.[/]"
    return "\n[green]All is well.[/]"
