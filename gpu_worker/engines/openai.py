"""The images API of OpenAI, or of any server that speaks it, as an engine: the device is elsewhere."""

import asyncio
import base64
import binascii
import io
import logging
import math
import random
import re
import ssl
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai
from PIL import Image, ImageOps

from contract.messages import Device, FailureCode, JsonScalar, ModelCard
from gpu_worker.engines.base import CANCELED, EngineState, Failure, ImageRequest, Outcome, Picture, Watch

logger = logging.getLogger(__name__)

MAX_BATCH = 4  # calls at the same time
RATE_LIMIT_TRIES = 3
LONGEST_RETRY_AFTER_S = 30.0
CANCEL_POLL_S = 0.1
MAX_PIXELS = 40_000_000
MAX_BASE64 = 128 * 1024 * 1024  # characters

OPENAI_URL = "https://api.openai.com/v1"

Size = tuple[int, int]


@dataclass(frozen=True)
class Family:
    """What one family of models takes."""

    prefix: str
    sizes: tuple[Size, ...]  # empty: any
    takes_response_format: bool  # the newest answer in base64 always, and refuse to be asked for it


FAMILIES = (
    Family("gpt-image", ((1024, 1024), (1536, 1024), (1024, 1536)), takes_response_format=False),
    Family("dall-e-3", ((1024, 1024), (1792, 1024), (1024, 1792)), takes_response_format=True),
    Family("dall-e-2", ((256, 256), (512, 512), (1024, 1024)), takes_response_format=True),
    Family("", (), takes_response_format=True),  # other servers' models
)

RATE_LIMITED = Failure(
    FailureCode.PROVIDER_RATE_LIMITED,
    "The images provider asks for fewer requests. Try again later.",
    retryable=True,
)
NO_QUOTA = Failure(
    FailureCode.PROVIDER_RATE_LIMITED,
    "The account with the images provider has no quota left.",
    retryable=False,
)
UNAUTHORIZED = Failure(
    FailureCode.PROVIDER_UNAUTHORIZED,
    "The images provider refused the key that the node has.",
    retryable=False,
)
REFUSED = Failure(FailureCode.CONTENT_REFUSED, "The images provider declined this prompt.", retryable=False)
NOT_UNDERSTOOD = Failure(
    FailureCode.INVALID_REQUEST, "The images provider can't do what is asked.", retryable=False
)
NO_SUCH_MODEL = Failure(
    FailureCode.MODEL_NOT_AVAILABLE, "The images provider doesn't have this model.", retryable=False
)
AWAY = Failure(
    FailureCode.PROVIDER_FAILED, "The images provider could not be reached or failed.", retryable=True
)
TOO_SLOW = Failure(FailureCode.PROVIDER_FAILED, "The images provider did not answer in time.", retryable=True)
NO_IMAGE = Failure(FailureCode.PROVIDER_FAILED, "The images provider's answer held no image.", retryable=True)
ONLY_A_LINK = Failure(
    FailureCode.PROVIDER_FAILED,
    "The images provider answered with a link, and not with the image itself (b64_json).",
    retryable=False,
)


class BadImage(Exception):
    """The answer holds no image that we take."""


class OpenAIEngine:
    """Requests in one batch are asked for at the same time. Seeds and steps can't be honoured."""

    name = "openai"

    def __init__(self, *, api_key: str, base_url: str, models: Sequence[str], timeout_s: float) -> None:
        """`base_url` empty: OpenAI's own. `timeout_s` bounds all that is done for one image."""
        self.device = Device(kind="remote", name=urlsplit(base_url or OPENAI_URL).hostname or "unknown")
        self._api_key = api_key or "none"  # many local servers want none, the SDK wants one
        self._base_url = base_url or OPENAI_URL
        self._models = {alias_of(model): model for model in models}
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    def models(self) -> Sequence[ModelCard]:
        return [
            ModelCard(
                name=alias,
                engine=self.name,
                description="Made by a remote images API: seed, steps and guidance are not honoured.",
                max_size=2048,
                size_multiple=8,
                can_reproduce=False,
            )
            for alias in self._models
        ]

    def state(self) -> EngineState:
        return EngineState(loaded=tuple(self._models))

    def prepare(self, model: str) -> bool:  # noqa: ARG002 - all are loaded, elsewhere
        return True

    def batch_key(self, request: ImageRequest) -> Hashable:  # noqa: ARG002 - any may be asked with any
        return "remote"

    def max_batch(self, key: Hashable) -> int:  # noqa: ARG002 - all are alike
        return MAX_BATCH

    def generate(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        return asyncio.run(self._all(batch, watch))

    def close(self) -> None:
        """There is nothing to give back."""

    async def _all(self, batch: Sequence[ImageRequest], watch: Watch) -> list[Outcome]:
        async with (
            openai.DefaultAsyncHttpxClient(
                verify=self._tls, timeout=self._timeout_s, follow_redirects=False
            ) as http,
            openai.AsyncOpenAI(
                api_key=self._api_key, base_url=self._base_url, max_retries=0, http_client=http
            ) as client,
        ):
            work = (self._one(client, request, watch) for request in batch)
            outcomes = await asyncio.gather(*work, return_exceptions=True)
        return [_outcome_of(outcome) for outcome in outcomes]

    async def _one(self, client: openai.AsyncOpenAI, request: ImageRequest, watch: Watch) -> Outcome:
        """One image, abandoned as soon as nobody wants it."""
        work = asyncio.create_task(self._within_deadline(client, request))
        while not work.done():
            await asyncio.wait({work}, timeout=CANCEL_POLL_S)
            if watch.canceled(request.id):
                work.cancel()
                await asyncio.wait({work})
                return CANCELED
        return work.result()

    async def _within_deadline(self, client: openai.AsyncOpenAI, request: ImageRequest) -> Outcome:
        # asyncio.timeout bounds the whole; the SDK's own timeout starts anew with every byte that drips in
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._asked(client, request)
        except (TimeoutError, openai.APITimeoutError):
            return TOO_SLOW

    async def _asked(self, client: openai.AsyncOpenAI, request: ImageRequest) -> Outcome:
        turn = 1
        while True:
            try:
                answer = await client.images.generate(**self._question(request))
            except openai.RateLimitError as exc:
                if exc.code == "insufficient_quota":
                    return NO_QUOTA
                if turn == RATE_LIMIT_TRIES:
                    return RATE_LIMITED
                await asyncio.sleep(_retry_after_s(exc.response.headers.get("retry-after", ""), turn))
                turn += 1
            except openai.APITimeoutError:
                raise
            except (openai.OpenAIError, ValueError) as exc:  # ValueError: broken JSON
                return _failure_of(exc)
            else:
                return await asyncio.to_thread(self._picture, answer, request)

    def _question(self, request: ImageRequest) -> dict[str, Any]:
        model = self._models.get(request.model, request.model)
        family = family_of(model)
        prompt = request.prompt
        if request.negative_prompt:
            prompt += f"\n\nAvoid: {request.negative_prompt}"
        width, height = nearest_size(request.width, request.height, family.sizes)
        question: dict[str, Any] = {"model": model, "prompt": prompt, "n": 1, "size": f"{width}x{height}"}
        if family.takes_response_format:
            question["response_format"] = "b64_json"
        return question

    def _picture(self, answer: object, request: ImageRequest) -> Outcome:
        data = getattr(answer, "data", None)
        first = data[0] if isinstance(data, list) and data else None
        text = getattr(first, "b64_json", None)
        if not isinstance(text, str) or not text:
            return ONLY_A_LINK if getattr(first, "url", None) else NO_IMAGE
        try:
            image = _opened(text)
        except BadImage as exc:
            logger.warning("The images provider's answer is no image: %s", exc)
            return NO_IMAGE
        fitted = ImageOps.fit(image, (request.width, request.height), Image.Resampling.LANCZOS)
        made_with: dict[str, JsonScalar] = {
            "engine": self.name,
            "engine_version": openai.__version__,
            "provider_model": self._models.get(request.model, request.model),
            "provider_size": f"{image.width}x{image.height}",
            "seed_used": False,
        }
        return Picture(fitted, made_with)


def alias_of(model: str) -> str:
    """The name under which a provider's model is offered: lab/FLUX.1 -> lab-flux.1. Raises ValueError."""
    alias = re.sub(r"[^a-z0-9._-]+", "-", model.lower()).lstrip("._-")[:63]
    if not alias:
        raise ValueError(f"{model!r} can't be the name of a model")
    return alias


def family_of(model: str) -> Family:
    """The family that a provider's model belongs to."""
    return next(family for family in FAMILIES if model.startswith(family.prefix))


def nearest_size(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The size to ask for: the nearest in shape, then the smallest that is large enough."""
    if not sizes:
        return width, height
    shape = math.log(width / height)

    def distance(size: Size) -> tuple[float, bool, int]:
        too_small = size[0] < width or size[1] < height
        area = size[0] * size[1]
        return abs(math.log(size[0] / size[1]) - shape), too_small, -area if too_small else area

    return min(sizes, key=distance)


def _opened(text: str) -> Image.Image:
    """Base64 -> an RGB or RGBA image of bounded size. Raises `BadImage`."""
    if len(text) > MAX_BASE64:
        raise BadImage("too long")
    try:
        raw = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        image = Image.open(io.BytesIO(raw), formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"{image.width}x{image.height} pixels")
        image.load()
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise BadImage(type(exc).__name__) from exc


def _outcome_of(outcome: Outcome | BaseException) -> Outcome:
    """What the SDK raises beyond its own errors is one image's failure too, not its neighbours'."""
    if not isinstance(outcome, BaseException):
        return outcome
    logger.error("The images provider's answer could not be read", exc_info=outcome)
    return AWAY


def _failure_of(exc: Exception) -> Failure:
    logger.warning("The images provider failed: %s", _told(exc))
    if isinstance(exc, (openai.AuthenticationError, openai.PermissionDeniedError)):
        return UNAUTHORIZED
    if isinstance(exc, openai.NotFoundError):
        return NO_SUCH_MODEL
    if isinstance(exc, (openai.BadRequestError, openai.UnprocessableEntityError)):
        return REFUSED if _is_moderation(exc) else NOT_UNDERSTOOD
    return AWAY


def _is_moderation(exc: openai.APIStatusError) -> bool:
    told = f"{exc.code} {exc.type} {exc.message}".lower()
    return any(word in told for word in ("moderation", "content_policy", "content policy", "safety system"))


def _told(exc: Exception) -> str:
    """For the log: never the answer's body, which may be anything."""
    if isinstance(exc, openai.APIStatusError):
        return f"status {exc.status_code}, code {exc.code!s:.80}"
    return type(exc).__name__


def _retry_after_s(header: str, turn: int) -> float:
    """How long the provider wants us to wait, within bounds; else a growing pause with jitter."""
    try:
        asked = float(header)
    except ValueError:
        return 2.0**turn * random.uniform(0.5, 1)  # noqa: S311 - jitter
    return min(max(asked, 0.0), LONGEST_RETRY_AFTER_S) if math.isfinite(asked) else LONGEST_RETRY_AFTER_S
