"""Which faults the simulator makes, and in which images: one line of text, and dice that fall the same."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

Fault = Literal[
    "slow",  # takes ten times as long
    "out_of_memory",
    "engine_failed",
    "crash",  # the process dies as by SIGKILL
    "hang",  # no sign of life any more
    "bad_upload",  # the file is stored cut in half
    "upload_failed",  # the file is not stored
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
AFTER_THE_ENGINE: frozenset[Fault] = frozenset({"bad_upload", "upload_failed"})

_SWITCHES = {"on": True, "off": False}
_NAMES = "|".join(name.replace("_", "[ _-]") for name in FAULTS)
_ASKED_FOR = re.compile(rf"\bfault:({_NAMES})(?::(\d+))?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Faults:
    """Shares from 0 to 1 of the attempts at images; an attempt meets one fault at the most.

    The same prompt, seed and attempt meet the same fault, in every process.
    """

    slow: float = 0.0
    out_of_memory: float = 0.0
    engine_failed: float = 0.0
    crash: float = 0.0
    hang: float = 0.0
    bad_upload: float = 0.0
    upload_failed: float = 0.0
    jitter: float = 0.0  # each picture takes up to this share longer
    poison: str = ""  # a prompt with this word kills its node, each time
    words: bool = False  # prompts may ask for a fault
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """`slow=0.1,crash=0.01,poison=WORD`. Raises `ValueError`, which says what is wrong with it."""
        given: dict[str, float | str | bool | int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (side.strip() for side in part.partition("="))
            if name in given:
                raise ValueError(f"{name} is there twice")
            given[name] = _value(name, value)
        made = cls(**given)  # type: ignore[arg-type]  # `_value` gives each its own type
        if sum(getattr(made, name) for name in FAULTS) > 1:
            raise ValueError(f"the shares of {', '.join(FAULTS)} come to more than 1 in all")
        return made

    def __str__(self) -> str:
        """What `parse` takes; nothing where there are no faults."""
        return ",".join(self._parts())

    def __bool__(self) -> bool:
        return self != Faults(seed=self.seed)

    def met(self, prompt: str, image_seed: int, attempt: str) -> Fault | None:
        """What this attempt at an image meets. `attempt` is any text that no other attempt at it has."""
        if self.poison and self.poison.casefold() in prompt.casefold():
            return "crash"
        asked_for = self._asked_for(prompt, image_seed)
        if asked_for is not None:
            return asked_for
        left = self._dice("fault", prompt, image_seed, attempt)
        for name in FAULTS:
            left -= getattr(self, name)
            if left < 0:
                return name
        return None

    def slowness(self, prompt: str, image_seed: int, attempt: str) -> float:
        """By how much longer this attempt takes, as a factor from 1."""
        factor = 10.0 if self.met(prompt, image_seed, attempt) == "slow" else 1.0
        return factor * (1 + self.jitter * self._dice("jitter", prompt, image_seed, attempt))

    def _asked_for(self, prompt: str, image_seed: int) -> Fault | None:
        """`fault:crash` in the prompt, or `fault:crash:50` for half of such images; each attempt the same."""
        found = _ASKED_FOR.search(prompt) if self.words else None
        if found is None:
            return None
        name = re.sub("[ -]", "_", found[1].lower())
        share = int(found[2] or 100) / 100
        is_one_of_them = self._dice("words", prompt, image_seed, "") < share
        return next(fault for fault in FAULTS if fault == name) if is_one_of_them else None

    def _dice(self, what: str, prompt: str, image_seed: int, attempt: str) -> float:
        """0 <= x < 1."""
        text = f"{self.seed}\n{what}\n{image_seed}\n{attempt}\n{prompt}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6]) / 2**48

    def _parts(self) -> Iterator[str]:
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                yield f"{field.name}={'on' if value is True else value}"


def _value(name: str, text: str) -> float | str | bool | int:
    """The value of one part, of the type that it must have."""
    if name in FAULTS or name == "jitter":
        return _share(name, text)
    if name == "poison":
        if not text:
            raise ValueError("poison needs a word")
        return text
    if name == "words":
        if text not in _SWITCHES:
            raise ValueError(f"words is on or off, not {text!r}")
        return _SWITCHES[text]
    if name == "seed":
        if not re.fullmatch(r"\d{1,18}", text):
            raise ValueError(f"seed is a whole number from 0 on, not {text!r}")
        return int(text)
    known = ", ".join(field.name for field in fields(Faults))
    raise ValueError(f"{name!r} is no fault; there are: {known}")


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # nor is it NaN
        raise ValueError(f"{name} is a share from 0 to 1, not {text!r}")
    return share
