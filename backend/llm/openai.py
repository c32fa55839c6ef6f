"""Prompts and answers from OpenAI, or from any server that speaks its API (vLLM, Ollama, LiteLLM, ...)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx2
import openai

from backend.errors import LLMBadAnswer, LLMError, LLMRefused, LLMUnauthorized
from backend.llm.answers import is_refusal, objects_in, read_prompts
from backend.llm.base import A, PromptRequest
from backend.llm.completions import Dialect, Question, complete, parsed
from backend.llm.connection import connect
from backend.llm.deadline import run_within
from backend.llm.instructions import messages, response_schema
from backend.llm.openai_errors import translated
from backend.llm.prompts import take_new
from backend.llm.questions import ask_for, ask_once_more, question_schema, read_as

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "no-key-needed"  # local servers take any
CHECK_TIMEOUT_S = 10.0
MAX_ROUNDS = 6
ANSWER_ROUNDS = 2  # an answer of the wrong shape is told so, once
MAX_AT_ONCE = 4  # requests side by side
PROMPTS_PER_REQUEST = 25  # more than that is cut off, or gets monotonous

T = TypeVar("T")


class OpenAILLM:
    """Writes prompts and answers with a chat model. One per process: it remembers what its server takes."""

    name = "openai"

    def __init__(self, *, api_key: str, base_url: str | None, model: str, timeout_s: float) -> None:
        self._api_key = api_key.strip() or NO_KEY
        self._base_url = (base_url or OPENAI_URL).strip()
        self._model = model
        self._timeout_s = timeout_s  # for one call of a verb, whatever the server does
        self._dialects: dict[object, Dialect] = {}  # by what is asked for: one alone may be refused

    def write_prompts(self, request: PromptRequest) -> list[str]:
        """See `LLM.write_prompts`. Not to be called in a thread that runs an event loop."""
        return self._run(self._timeout_s, lambda client: self._write(client, request))

    def answer(self, instructions: str, content: str, schema: type[A]) -> A:
        """See `LLM.answer`. Not to be called in a thread that runs an event loop."""
        return self._run(self._timeout_s, lambda client: self._answer(client, instructions, content, schema))

    def check(self) -> None:
        """See `LLM.check`. Asks for the list of models, which costs nothing."""
        self._run(min(self._timeout_s, CHECK_TIMEOUT_S), self._list_models)

    def _run(self, seconds: float, work: Callable[[openai.AsyncOpenAI], Awaitable[T]]) -> T:
        self._check_configuration()

        async def connected() -> T:
            async with connect(api_key=self._api_key, base_url=self._base_url, timeout_s=seconds) as client:
                return await work(client)

        try:
            return run_within(seconds, connected)
        except LLMError as exc:
            logger.warning("%s at %s: %s (%s)", self._model, self._host(), exc, self._cause(exc))
            raise

    # -- rounds ---------------------------------------------------------------------------------------

    async def _write(self, client: openai.AsyncOpenAI, request: PromptRequest) -> list[str]:
        """Asks until there are enough: first once, then for all that is missing, side by side."""
        written: list[str] = []
        patience = 1  # rounds that may bring nothing but nonsense
        for number in range(MAX_ROUNDS):
            answers = await self._ask_round(client, request, written, number)
            new = take_new(_prompts_of(answers), written, request.count - len(written))
            written += new
            if len(written) == request.count:
                return written
            if not new:
                _raise_what_failed(answers, patience)
                patience -= 1
            if patience < 0:
                break
        raise LLMBadAnswer(
            f"The language model wrote {len(written)} different prompts where {request.count} were asked for."
        )

    async def _ask_round(
        self, client: openai.AsyncOpenAI, request: PromptRequest, written: list[str], number: int
    ) -> "list[list[str] | LLMError]":
        counts = _shares(request.count - len(written), at_once=MAX_AT_ONCE if written else 1)
        asks = [
            self._ask(
                client, self._question(request, count, written, number, part if len(counts) > 1 else None)
            )
            for part, count in enumerate(counts)
        ]
        return await asyncio.gather(*(_outcome(ask) for ask in asks))

    def _question(
        self, request: PromptRequest, count: int, written: list[str], number: int, part: int | None
    ) -> Question:
        seed = request.seed
        if seed is not None:  # of its own for each request: the same one would bring the same prompts
            seed = (seed + number * MAX_AT_ONCE + (part or 0)) % 2**31
        conversation = messages(request, count, written, part)
        return Question(self._model, conversation, response_schema(count), seed)

    async def _ask(self, client: openai.AsyncOpenAI, question: Question) -> list[str]:
        prompts = read_prompts(text := await self._complete(client, question, PromptRequest))
        if not prompts:
            raise LLMRefused if is_refusal(text) else LLMBadAnswer
        return prompts

    async def _complete(self, client: openai.AsyncOpenAI, question: Question, kind: object) -> str:
        known = self._dialects.get(kind, Dialect())
        text, self._dialects[kind] = await complete(client, question, known)
        return text

    # -- answers --------------------------------------------------------------------------------------

    async def _answer(
        self, client: openai.AsyncOpenAI, instructions: str, content: str, schema: type[A]
    ) -> A:
        """Asks, and once more where what came is not of the shape."""
        conversation = ask_for(instructions, content, schema)
        error = LLMBadAnswer()
        for _ in range(ANSWER_ROUNDS):
            question = Question(self._model, conversation, question_schema(schema))
            try:
                text = await self._complete(client, question, schema)
            except LLMBadAnswer as exc:
                error = exc
                continue
            found, why = read_as(schema, objects_in(text))
            if found is not None:
                return found
            if is_refusal(text):
                raise LLMRefused
            conversation = ask_once_more(conversation, text, why)
        raise error

    # -- check ----------------------------------------------------------------------------------------

    async def _list_models(self, client: openai.AsyncOpenAI) -> None:
        try:
            response = await client.models.with_raw_response.list()
        except openai.APIStatusError as exc:
            if exc.status_code not in (404, 405, 501):  # a server without the list is there all the same
                raise translated(exc) from exc
        except openai.OpenAIError as exc:
            raise translated(exc) from exc
        else:
            parsed(response.text)

    def _check_configuration(self) -> None:
        if not self._api_key.isascii() or not self._api_key.isprintable():
            raise LLMUnauthorized("The language model's key has characters that no key has.")
        if not self._host():
            raise LLMError("The language model's URL is not one: it begins with http:// or https://.")

    # -- for the log ----------------------------------------------------------------------------------

    def _host(self) -> str:
        try:
            url = httpx2.URL(self._base_url)
        except httpx2.InvalidURL:
            return ""
        return url.host if url.scheme in ("http", "https") else ""

    def _cause(self, error: LLMError) -> str:
        """What the server or the SDK said, shortened, without the key."""
        cause = error.__cause__
        return str(cause or "no more is known").replace(self._api_key, "***")[:500]


async def _outcome(ask: Coroutine[Any, Any, list[str]]) -> "list[str] | LLMError":
    """An answer's failure as data, so that it doesn't take its neighbours along."""
    try:
        return await ask
    except LLMError as exc:
        return exc


def _prompts_of(answers: "list[list[str] | LLMError]") -> list[str]:
    return [prompt for answer in answers if not isinstance(answer, LLMError) for prompt in answer]


def _raise_what_failed(answers: "list[list[str] | LLMError]", patience: int) -> None:
    """Raises the first error of a round that brought nothing; for nonsense alone only without `patience`."""
    errors = [answer for answer in answers if isinstance(answer, LLMError)]
    serious = [error for error in errors if not isinstance(error, LLMBadAnswer)]
    if serious:
        raise serious[0]
    if errors and patience <= 0:
        raise errors[0]


def _shares(missing: int, at_once: int) -> list[int]:
    """`missing` prompts shared out evenly over as few requests as will do, `at_once` at the most."""
    requests = min(at_once, -(-missing // PROMPTS_PER_REQUEST))
    per_request = min(PROMPTS_PER_REQUEST, -(-missing // requests))
    shares: list[int] = []
    while missing > 0 and len(shares) < requests:
        shares.append(min(per_request, missing))
        missing -= shares[-1]
    return shares
