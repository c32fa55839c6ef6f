"""Translates what the OpenAI SDK raises, and what servers answer, into our own errors.

What a server says is for the operator's log, never for the client: it may quote the key or the message.
"""

import math
from collections.abc import Mapping

import openai

from backend import retry_after
from backend.errors import (
    LLMBadAnswer,
    LLMError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRefused,
    LLMTimeout,
    LLMUnauthorized,
    LLMUnavailable,
)

MAX_RETRY_AFTER_S = 60

_QUOTA = (
    "insufficient_quota",
    "billing_hard_limit",
    "insufficient balance",
    "insufficient_balance",
    "credit balance",
)
_FILTERED = ("content_filter", "content_policy", "content management policy", "moderation", "safety system")
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "exceeds the available context",
)
_NO_MODEL = ("model_not_found", "does not exist", "model not found", "unknown model", "try pulling it")


def translated(error: openai.OpenAIError) -> LLMError:
    """Our error for one that the SDK raised. To be raised `from` it."""
    if isinstance(error, openai.APITimeoutError):
        return LLMTimeout()
    if isinstance(error, openai.APIStatusError):
        return from_status(error.status_code, server_text(error), error.response.headers)
    if isinstance(error, openai.APIConnectionError):
        return LLMUnavailable()
    return LLMBadAnswer("The language model's server answered with something that is not its API.")


def server_text(error: openai.APIStatusError) -> str:
    """Everything that the server said about its refusal, in lower case, for telling refusals apart."""
    said = error.message if error.body is None else error.body
    return f"{error.code} {error.type} {error.param} {said}".casefold()


def from_status(status: int, text: str, headers: Mapping[str, str]) -> LLMError:
    """Our error for a refusal with HTTP status `status` and the (lower-case) words `text`."""
    if any(word in text for word in _FILTERED) and 400 <= status < 500:
        return LLMRefused()
    if status == 402 or (status in (403, 429) and any(word in text for word in _QUOTA)):
        return LLMQuotaExceeded()
    if status in (401, 403):
        return LLMUnauthorized()
    if status == 408:
        return LLMTimeout()
    if status in (409, 425, 429) or status >= 500:
        return _try_later(LLMRateLimited() if status == 429 else LLMUnavailable(), headers)
    return LLMError(_advice(status, text))


def _advice(status: int, text: str) -> str:
    if status < 400:
        return "The language model's server redirects elsewhere: its URL must be configured as it finally is."
    if any(word in text for word in _TOO_LONG) or status == 413:
        return "The message is longer than the configured language model can read."
    if any(word in text for word in _NO_MODEL):
        return "The language model's server doesn't know the model that is configured."
    if status in (404, 405):
        return "The language model's server has no chat completions at the configured URL."
    return f"The language model's server refused the request (HTTP {status}); the server's log says why."


def _try_later(error: LLMError, headers: Mapping[str, str]) -> LLMError:
    error.retry_after_s = retry_after_s(headers)
    return error


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Whole seconds to wait, 1 to MAX_RETRY_AFTER_S; None where the server didn't say, or not sensibly."""
    finer = retry_after.seconds_of(headers.get("retry-after-ms", ""))  # OpenAI's own
    seconds = retry_after.seconds_of(headers.get("retry-after", "")) if finer is None else finer / 1000
    return None if seconds is None else max(1, min(MAX_RETRY_AFTER_S, math.ceil(seconds)))
