"""Fills an object of any shape from a text, without a language model: it looks up, and thinks nothing.

- A choice: the label most of whose words, and of those that the field's description gives it, are there.
- Yes or no: whether any of the description's words is in the text.
- A text: the best of the field's examples, where it has some; the language of the text, for a field with that
  name; or else the beginning of the text.
- A number: the first in the text that is in bounds.
What can't be found keeps its default.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from backend.errors import LLMError
from backend.llm.base import A
from backend.llm.language import SMALL_WORDS, language_of
from backend.llm.prompts import cut, tidy

MAX_READ_CHARACTERS = 64 * 1024
EXTRACT_CHARACTERS = 280
STEM = 5  # letters of a word that tell it apart: refund, refunds, refunded
MOST_DEPTH = 8  # of objects in objects

_WORD = re.compile(r"[^\W_]{3,}")
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,6})?")


def fill(schema: type[A], content: str) -> A:
    """An object by the schema; the same each time. Raises `LLMError` for a field that it can't fill."""
    shape = schema.model_json_schema()
    filling = _Filling(content[:MAX_READ_CHARACTERS], shape.get("$defs", {}))
    try:
        return schema.model_validate_json(json.dumps(filling.value("", shape, MOST_DEPTH)))
    except ValidationError as exc:
        fields = ", ".join(str(error["loc"][0]) for error in exc.errors() if error["loc"])
        raise LLMError(f"The template language model can't fill in: {fields}.") from exc


class _Filling:
    """One text, and what is made of it."""

    def __init__(self, content: str, definitions: dict[str, Any]) -> None:
        self._content = content.encode("utf-8", "replace").decode()
        self._stems = _stems(content)
        self._definitions = definitions

    def value(self, name: str, given: dict[str, Any], depth: int) -> Any:  # noqa: ANN401 - JSON
        """For a field by its JSON schema."""
        part = self._resolved(given)
        if depth == 0 or "const" in part:
            return part.get("const")
        if "enum" in part:
            return self._choice(part)
        if part.get("type") == "boolean":
            return self._meets(part.get("description", "")) > 0 or part.get("default", False)
        if part.get("type") == "array" and (labels := self._labels(part)):
            return labels
        if "default" in part:
            return part["default"]
        match part.get("type"):
            case "object":
                fields = part.get("properties", {})
                return {key: self.value(key, field, depth - 1) for key, field in fields.items()}
            case "array":
                items = self._resolved(part.get("items", {}))
                least = part.get("minItems", 0)
                return items["enum"][:least] if "enum" in items else [self.value(name, items, depth - 1)]
            case "integer" | "number":
                return self._number(part)
            case "string":
                return self._text(name, part)
        return None

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """Without references, and without the null that an optional field might be."""
        for options in (part.get("anyOf"), part.get("allOf")):
            real = [option for option in options or () if option.get("type") != "null"]
            if real:
                return self._resolved(
                    real[0] | {name: part[name] for name in part if name not in ("anyOf", "allOf")}
                )
        if "$ref" in part:
            found = self._definitions.get(part["$ref"].rpartition("/")[2], {})
            return self._resolved(found | {name: part[name] for name in part if name != "$ref"})
        return part

    def _choice(self, part: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        labels = part["enum"]
        scores = [self._meets(words) for words in _words_of(labels, part.get("description", ""))]
        if not any(scores) and "default" in part:
            return part["default"]
        return labels[scores.index(max(scores))]

    def _labels(self, part: dict[str, Any]) -> list[Any]:
        """Of several that may be chosen, those that the text speaks of."""
        items = self._resolved(part.get("items", {}))
        labels = items.get("enum", [])
        told = _words_of(labels, items.get("description") or part.get("description", ""))
        met = [label for label, words in zip(labels, told, strict=True) if self._meets(words)]
        return met[: part.get("maxItems")]

    def _number(self, part: dict[str, Any]) -> float:
        least = part.get("minimum", part.get("exclusiveMinimum", float("-inf")))
        most = part.get("maximum", part.get("exclusiveMaximum", float("inf")))
        for text in _NUMBER.findall(self._content):
            number = float(text)
            if least <= number <= most and (part["type"] == "number" or number.is_integer()):
                return int(number) if number.is_integer() else number
        return 0 if least <= 0 <= most else int(least if least > 0 else most)

    def _text(self, name: str, part: dict[str, Any]) -> str:
        if name == "language":
            return language_of(self._content)
        if examples := part.get("examples"):
            scores = [self._meets(example) for example in examples]
            return str(examples[scores.index(max(scores))])
        limit = min(part.get("maxLength", EXTRACT_CHARACTERS), EXTRACT_CHARACTERS)
        return cut(tidy(self._content), limit) or "…"

    def _meets(self, words: str) -> int:
        """How many of these words are in the text, each counted once."""
        return len(_stems(words) & self._stems)


def _words_of(labels: Sequence[Any], description: str) -> list[str]:
    """Of each label: its own words, and those that follow it in the description, up to a semicolon."""
    found = []
    for label in labels:
        told = re.search(rf"(?:^|[;.])\s*{re.escape(str(label))}\s*:([^;]*)", description)
        found.append(f"{str(label).replace('_', ' ')} {told[1] if told else ''}")
    return found


def _stems(text: str) -> set[str]:
    words = (word.casefold() for word in _WORD.findall(text))
    return {word[:STEM] for word in words if word not in SMALL_WORDS["en"]}
