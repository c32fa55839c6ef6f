"""One chat completion: asked in the richest form that the server takes, answered as plain text."""

import json
import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

import openai

from backend.errors import LLMBadAnswer, LLMRefused
from backend.llm.openai_errors import from_status, server_text, translated

logger = logging.getLogger(__name__)

_ABOUT_THE_FORM = (
    "response_format",
    "response format",
    "json_schema",
    "json_object",
    "grammar",
    "structured output",
)


@dataclass(frozen=True)
class Dialect:
    """What a server has shown to understand. Starts hopeful, gets simpler with each refusal."""

    form: Literal["json_schema", "json_object", "words"] = "json_schema"
    seed: bool = True

    def options(self, response_format: dict[str, Any], seed: int | None) -> dict[str, Any]:
        """The optional parameters of a request, as far as the server takes them."""
        options: dict[str, Any] = {}
        if self.form == "json_schema":
            options["response_format"] = response_format
        elif self.form == "json_object":
            options["response_format"] = {"type": "json_object"}
        if self.seed and seed is not None:
            options["seed"] = seed
        return options

    def after_refusal(self, status: int, text: str, seed: int | None) -> "Dialect | None":
        """What to try after the server refused with `status` and `text`; None: this is not about the form."""
        about_form = self.form != "words" and any(word in text for word in _ABOUT_THE_FORM)
        if status not in (400, 422) and not (about_form and status in (404, 500, 501)):
            return None
        if self.seed and seed is not None and not about_form:
            return replace(self, seed=False)
        if self.form == "words":
            return None
        return replace(self, form="json_object" if self.form == "json_schema" else "words")


@dataclass(frozen=True)
class Question:
    """One request."""

    model: str
    conversation: list[dict[str, str]]
    response_format: dict[str, Any]  # of structured output, for servers that have it
    seed: int | None = None


async def complete(client: openai.AsyncOpenAI, question: Question, dialect: Dialect) -> tuple[str, Dialect]:
    """The answer's text, and the dialect that the server took. Raises a subclass of `LLMError`."""
    while True:
        try:
            body = await _send(client, question, dialect)
        except openai.APIStatusError as exc:
            text = server_text(exc)
            error = translated(exc)
            simpler = dialect.after_refusal(exc.status_code, text, question.seed)
            if isinstance(error, LLMRefused) or simpler is None:
                raise error from exc
            logger.info(
                "the language model's server refused %s (HTTP %d); trying %s",
                dialect,
                exc.status_code,
                simpler,
            )
            dialect = simpler
        except openai.OpenAIError as exc:
            raise translated(exc) from exc
        else:
            return answer_text(body), dialect


async def _send(client: openai.AsyncOpenAI, question: Question, dialect: Dialect) -> str:
    """The body as it came: the SDK's own models crash on, or hide, what odd servers answer."""
    conversation: Any = question.conversation
    response = await client.chat.completions.with_raw_response.create(
        model=question.model,
        messages=conversation,
        **dialect.options(question.response_format, question.seed),
    )
    return str(response.text)


def answer_text(body: str) -> str:
    """What the model says in a chat completion's `body`.

    Raises `LLMRefused`, `LLMBadAnswer`, or whatever error the body reports.
    """
    completion = parsed(body)
    if isinstance(failure := completion.get("error"), dict):  # a gateway's error under HTTP 200
        raise _reported(failure)
    choice = _first(completion.get("choices"))
    if choice is None:
        raise LLMBadAnswer("The language model answered without a choice.")
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise LLMRefused
    text = _text(message.get("content"))
    if not text.strip():
        raise LLMBadAnswer(_why_empty(choice))
    return text


def parsed(body: str) -> dict[str, Any]:
    """The JSON object in `body`, else `LLMBadAnswer`."""
    try:
        value = json.loads(body, strict=False)
    except (ValueError, RecursionError) as exc:
        if body.lstrip()[:1] == "<":
            raise LLMBadAnswer(
                "The language model's server answered with a web page: is its URL right?"
            ) from exc
        raise LLMBadAnswer("The language model's server answered with broken JSON.") from exc
    if not isinstance(value, dict):
        raise LLMBadAnswer("The language model's server answered with something that is not its API.")
    return value


def _first(choices: object) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _text(content: object) -> str:
    """Content as text: servers send a string, parts, or null."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _why_empty(choice: dict[str, Any]) -> str:
    if choice.get("finish_reason") == "length":
        return "The language model reached its token limit before it had written anything."
    return "The language model's answer was empty."


def _reported(failure: dict[str, Any]) -> Exception:
    code = failure.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 502
    return from_status(status, str(failure).casefold(), {})
