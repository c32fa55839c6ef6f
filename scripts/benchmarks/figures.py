"""What benchmarks bring home: figures, each with what it is compared with and the goal that it has."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """Written as `ratio >= 0.97` or `value <= 1.47`."""

    of: Literal["value", "ratio"]
    sign: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{self.of} {self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured."""

    name: str
    value: float
    unit: str
    baseline: float | None = None  # in the same unit: what it is compared with
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """`value / baseline`."""
        return self.value / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None: there is none, or nothing to compare with."""
        reached = self.value if self.goal and self.goal.of == "value" else self.ratio
        if self.goal is None or reached is None:
            return None
        return reached >= self.goal.bound if self.goal.sign == ">=" else reached <= self.goal.bound

    def as_json(self) -> dict[str, str | float | None]:
        """The same for every benchmark of the project."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "baseline": _rounded(self.baseline),
            "ratio": _rounded(self.ratio),
            "goal": str(self.goal) if self.goal else None,
        }


class Figures:
    """Collects, and tells each the moment it is there."""

    def __init__(self) -> None:
        self.all: list[Figure] = []
        self._began = False

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        baseline: float | None = None,
        goal: Goal | None = None,
    ) -> None:
        """One more figure, as a line of the table."""
        figure = Figure(name, value, unit, baseline, goal)
        self.all.append(figure)
        if not self._began:
            print(f"\n{'what':74} {'value':>10} {'unit':10} {'baseline':>10} {'ratio':>7}  goal")
            self._began = True
        print(_line(figure), flush=True)

    def finish(self, file: Path | None) -> None:
        """Writes the file, where there is to be one."""
        if file is not None:
            file.write_text(json.dumps([figure.as_json() for figure in self.all], indent=1) + "\n", "utf-8")


def say(text: str) -> None:
    """Progress, beside the table."""
    print(f"  .. {text}", file=sys.stderr, flush=True)


def _line(figure: Figure) -> str:
    baseline = "" if figure.baseline is None else f"{figure.baseline:.4g}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
    end = "" if figure.goal is None else f"{figure.goal}: {'met' if figure.met else 'missed'}"
    return f"{figure.name:74} {figure.value:10.4g} {figure.unit:10} {baseline:>10} {ratio:>7}  {end}".rstrip()


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
