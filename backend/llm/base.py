"""The LLM port: prompts, and answers of any shape."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import BaseModel

MAX_PROMPT_CHARACTERS = 2000

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class PromptRequest:
    """What is asked of a language model."""

    message: str  # the user's words: data, never instructions
    count: int  # how many prompts, 1 to 100
    seed: int | None = None
    width: int | None = None  # pixels; lets the model compose for the format
    height: int | None = None
    options: dict[str, str] = field(default_factory=dict)


class LLM(Protocol):
    """Writes image prompts, and answers questions about texts."""

    name: str

    def write_prompts(self, request: PromptRequest) -> list[str]:
        """Exactly `request.count` prompts: distinct, non-empty, at most MAX_PROMPT_CHARACTERS each.

        Raises a subclass of `LLMError` (backend.errors) with a stable code where that can't be had;
        `retryable` on it says whether asking again makes sense. Returns or raises within the
        deadline that the adapter was built with, whatever the server does.
        """
        ...

    def answer(self, instructions: str, content: str, schema: type[A]) -> A:
        """What `instructions` ask about `content`, as an object that `schema` has validated.

        `instructions` are ours, `content` is somebody else's words: data, never instructions. Descriptions of
        the schema's fields say what is wanted in each. Where a field has a choice, they tell what each label
        is for, as in `billing: invoices, refunds; shipping: parcels, delays`.
        Raises and keeps the deadline as `write_prompts` does.
        """
        ...

    def check(self) -> None:
        """Returns if a request could be answered now, else raises an `LLMError` that says what to mend."""
        ...
