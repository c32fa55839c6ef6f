"""Reads prompts, or objects, out of what language models really answer. Pure, and never an error.

Seen from real servers: fenced JSON, a bare array, a thinking block first, one object per line, JSON in a
string, truncated JSON, prose around it, and numbered lists where JSON was asked for.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MAX_ANSWER_CHARACTERS = 400_000
_MAX_NESTING = 3  # of an object in what models wrap it in
_MAX_STARTS = 200  # places where a JSON value is tried to begin: bounds the work on garbage

_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_LIST_KEYS = ("prompts", "image_prompts", "imageprompts", "images", "items", "results", "data", "output")
_TEXT_KEYS = ("prompt", "image_prompt", "imageprompt", "text", "description", "content", "prompts")
_NUMBERED_KEY = re.compile(r"(?:image)?[ _-]?(?:prompt)?[ _-]?\d{1,3}", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:(")(\s*:)?|\\?\Z)', re.DOTALL)  # also the one that is cut off
_LISTED = re.compile(
    r"^[ \t]*(?:\*\*)?(?:prompt[ \t]*)?(?:\d{1,3}[ \t]*[.):]|[-*•])(?:\*\*)?[ \t]+(\S.{11,})$",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:really |very |truly )?sorry|sorry,|i apologi[sz]e|as an ai\b"
    r"|i (?:can(?:no|['’])?t|am unable|won['’]?t)\b|i['’]m (?:unable|not able))",
    re.IGNORECASE,
)


def read_prompts(answer: str) -> list[str]:
    """Every prompt that `answer` holds, in order, as it stands there; [] where there is none."""
    text = _without_thoughts(answer[:MAX_ANSWER_CHARACTERS])
    return _from_values(text) or _from_fragments(text) or _from_list(text)


def objects_in(answer: str) -> list[dict[str, Any]]:
    """Every JSON object that `answer` holds, outer ones first: also in arrays, strings and other objects."""
    text = _without_thoughts(answer[:MAX_ANSWER_CHARACTERS])
    return [found for value in _json_values(text) for found in _objects_in_value(value, _MAX_NESTING)]


def _objects_in_value(value: object, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        return
    if isinstance(value, dict):
        yield value
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif isinstance(value, str) and "{" in value:
        inner = _json_values(value)
    for one in inner:
        yield from _objects_in_value(one, depth - 1)


def is_refusal(answer: str) -> bool:
    """Whether `answer` declines in plain words. Ask only where it held no prompts."""
    return _REFUSAL.match(_without_thoughts(answer)) is not None


def _without_thoughts(text: str) -> str:
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    if ends:  # templates may swallow the opening tag, so the last closing one decides
        return text[ends[-1] :]
    return "" if _THOUGHT_START.match(text) else text  # cut off while thinking


# -- whole JSON values ---------------------------------------------------------------------------------


def _from_values(text: str) -> list[str]:
    found = [prompts for value in _json_values(text) if (prompts := _prompts_in(value))]
    if all(len(prompts) == 1 for prompts in found):  # one object for each prompt
        return [prompt for prompts in found for prompt in prompts]
    return max(found, key=len)


def _json_values(text: str) -> Iterator[Any]:
    """The outermost JSON values in `text`: the whole of it, or else whatever stands between other words."""
    try:
        yield json.loads(text, strict=False)
    except (ValueError, RecursionError):
        yield from _values_between_words(text)


def _values_between_words(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(strict=False)
    position = 0
    for _ in range(_MAX_STARTS):
        begin = _next_start(text, position)
        if begin < 0:
            return
        try:
            value, position = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            position = begin + 1
        else:
            yield value


def _next_start(text: str, position: int) -> int:
    starts = [at for mark in "[{" if (at := text.find(mark, position)) >= 0]
    return min(starts, default=-1)


def _prompts_in(value: object) -> list[str]:
    if isinstance(value, list):
        return [text for item in value if (text := _text_of(item)) is not None]
    if isinstance(value, dict):
        return _prompts_in_object({str(key).casefold(): item for key, item in value.items()})
    if isinstance(value, str):  # JSON wrapped in a JSON string
        return next((found for inner in _json_values(value) if (found := _prompts_in(inner))), [])
    return []


def _prompts_in_object(value: dict[str, Any]) -> list[str]:
    for key in _LIST_KEYS:
        if isinstance(value.get(key), list | dict | str) and (found := _prompts_in(value[key])):
            return found
    if (text := _text_of(value)) is not None:
        return [text]
    numbered = [item for key, item in value.items() if isinstance(item, str) and _NUMBERED_KEY.fullmatch(key)]
    lists = [item for item in value.values() if isinstance(item, list)]
    return numbered or (_prompts_in(lists[0]) if len(lists) == 1 else [])


def _text_of(item: object) -> str | None:
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        texts = (value for key in _TEXT_KEYS if isinstance(value := item.get(key), str))
        return next(texts, None)
    return None


# -- what can be saved from the rest ------------------------------------------------------------------


def _from_fragments(text: str) -> list[str]:
    """The complete strings of a JSON array that was cut off or is broken."""
    start = text.find("[")
    saved: list[str] = []
    key = ""
    for match in _STRING.finditer(text, start) if start >= 0 else ():
        if not match[2]:
            break
        if match[3]:
            key = match[1].casefold()
            continue
        if not key or key in _TEXT_KEYS:
            saved.append(_unescaped(match[1]))
        key = ""
    return saved


def _unescaped(content: str) -> str:
    try:
        return str(json.loads(f'"{content}"', strict=False))
    except ValueError:
        return content


def _from_list(text: str) -> list[str]:
    """The items of a numbered or bulleted list in plain words."""
    return [match[1].strip() for match in _LISTED.finditer(text)]
