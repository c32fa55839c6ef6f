"""The log of the whole tree: one prefix per process, coloured on a terminal."""

import os
import sys
from typing import TextIO

COLOURS = {"broker": 35, "api": 36, "worker": 32}  # ANSI; nodes take turns in the rest
NODE_COLOURS = (33, 34, 31)
NAME_WIDTH = 7


class Log:
    """Writes lines to a stream; a stream that went away is no reason to stop."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._coloured = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._colours = dict(COLOURS)

    def line(self, name: str, text: str) -> None:
        """One line of one process."""
        prefix = f"{name:<{NAME_WIDTH}} |"
        if self._coloured:
            prefix = f"\x1b[{self._colour(name)}m{prefix}\x1b[0m"
        self._write(f"{prefix} {text}\n")

    def note(self, text: str) -> None:
        """A word of our own, to the user."""
        self._write(f"\x1b[1m{text}\x1b[0m\n" if self._coloured else f"{text}\n")

    def _colour(self, name: str) -> int:
        if name not in self._colours:
            self._colours[name] = NODE_COLOURS[len(self._colours) % len(NODE_COLOURS)]
        return self._colours[name]

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe or terminal
            pass
