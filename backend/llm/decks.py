"""Variety by dealing cards: every card once before any comes again. Pure, repeatable by its dice."""

import random
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


def _any(_: object) -> bool:
    return True


class Deck(Generic[T]):
    """Deals without end. A card never comes twice running where there are others to deal.

    Independent draws repeat themselves (of eight pictures, two would share one light in thirty);
    several decks of different sizes, each dealt through and shuffled anew, don't.
    """

    def __init__(self, cards: Sequence[T], dice: random.Random) -> None:
        self._cards = cards
        self._dice = dice
        self._hand: list[T] = []
        self._last: T | None = None

    def deal(self, fits: Callable[[T], bool] = _any) -> T:
        """The next card that fits; the next one at all where none does."""
        at = self._find(fits)
        if at is None:
            self._hand += self._shuffled()
            at = self._find(fits)
        self._last = self._hand.pop(at or 0)
        return self._last

    def _find(self, fits: Callable[[T], bool]) -> int | None:
        fitting = (at for at, card in enumerate(self._hand) if fits(card))
        return next(fitting, None)

    def _shuffled(self) -> list[T]:
        cards = list(self._cards)
        self._dice.shuffle(cards)
        if len(cards) > 1 and not self._hand and cards[0] == self._last:
            cards.append(cards.pop(0))
        return cards
