"""What is said beside the queue, through the result store (Redis): signs of life, progress, cancel, attempts.

All of it may be lost without harm: the database is the truth. Every key has a time to live but the list
of known models. Key names are part of the contract: Redis ACLs for nodes are written against them.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import redis
from pydantic import ValidationError
from redis.sentinel import Sentinel

from contract.addresses import sentinels
from contract.messages import ModelCard, NodeAnnouncement

NODES = "fanfare:nodes"  # hash: node -> NodeAnnouncement
MODELS = "fanfare:models"  # hash: alias -> ModelCard, of every node ever seen
NODE_GONE_AFTER_S = 15
FLAG_TTL_S = 2 * 86400
REFUSALS_TTL_S = 3600
PREVIEW_TTL_S = 600
ENDED_TTL_S = 600  # of what is left of a job that has ended

_TAKE_PLACE = """
if redis.call('EXISTS', KEYS[2]) == 1 then
    return 0
end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local is_new = not redis.call('ZSCORE', KEYS[1], ARGV[1])
if is_new and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


def _cancel_key(job_id: UUID) -> str:
    return f"fanfare:cancel:{job_id}"


def _progress_key(job_id: UUID) -> str:
    return f"fanfare:progress:{job_id}"


def _previews_key(job_id: UUID) -> str:
    return f"fanfare:previews:{job_id}"


def _attempts_key(image_id: UUID, run: int) -> str:
    return f"fanfare:attempts:{image_id}:{run}"


def _alone_key(image_id: UUID, run: int) -> str:
    return f"fanfare:alone:{image_id}:{run}"


def _result_key(image_id: UUID, run: int) -> str:
    return f"fanfare:result:{image_id}:{run}"


def _turn_key(what: str) -> str:
    return f"fanfare:turn:{what}"


def _places_key(where: str) -> str:
    return f"fanfare:places:{where}"


def _rest_key(where: str) -> str:
    return f"fanfare:rest:{where}"


def _refusals_key(where: str) -> str:
    return f"fanfare:refusals:{where}"


def connect(result_url: str) -> "redis.Redis":
    """A client with short timeouts: what it is used for is never worth waiting for. Raises `ValueError`."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": 3,
        "socket_connect_timeout": 2,
        "health_check_interval": 30,
    }
    found = sentinels(result_url)
    if not found:
        return redis.Redis.from_url(result_url, **options)
    who_knows: Any = Sentinel  # has no types
    master = who_knows(found.hosts, sentinel_kwargs=found.patience()).master_for
    login = {"username": found.username, "password": found.password}
    return cast("redis.Redis", master(found.master, db=found.database, **login, **options))


@dataclass(frozen=True)
class Delivery:
    """What is known of an image when its message comes."""

    number: int = 1  # which delivery this is, over all nodes and restarts; from 1
    unwanted: bool = False  # its job has ended
    kept_result: str | None = None  # what was made of it before


class Signals:
    """Verbs over the result store. Each raises `redis.RedisError` when the store is away."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client

    # -- nodes ----------------------------------------------------------------------------------------

    def announce(self, announcement: NodeAnnouncement) -> None:
        """A node's sign of life; its models become known for good."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hset(NODES, announcement.node, announcement.model_dump_json())
        for card in announcement.models:
            pipe.hset(MODELS, card.name, card.model_dump_json())
        pipe.execute()

    def leave(self, node: str) -> None:
        """A node's orderly end."""
        self._redis.hdel(NODES, node)

    def nodes(self) -> list[NodeAnnouncement]:
        """The live nodes, by name. Those silent for NODE_GONE_AFTER_S are forgotten on the way."""
        now = datetime.now(UTC)
        live: list[NodeAnnouncement] = []
        gone: list[str] = []
        for name, text in cast("dict[str, str]", self._redis.hgetall(NODES)).items():
            try:
                node = NodeAnnouncement.model_validate_json(text)
            except ValidationError:  # of another version
                continue
            if (now - node.seen_at).total_seconds() > NODE_GONE_AFTER_S:
                gone.append(name)
            else:
                live.append(node)
        if gone:
            self._redis.hdel(NODES, *gone)
        return sorted(live, key=lambda node: node.node)

    def models(self) -> dict[str, ModelCard]:
        """Every model that any node has ever announced, by alias."""
        cards: dict[str, ModelCard] = {}
        for alias, text in cast("dict[str, str]", self._redis.hgetall(MODELS)).items():
            try:
                cards[alias] = ModelCard.model_validate_json(text)
            except ValidationError:
                continue
        return cards

    # -- jobs -----------------------------------------------------------------------------------------

    def unwanted(self, job_ids: Iterable[UUID]) -> dict[UUID, int]:
        """The last run of which nobody wants anything; jobs of which everything is wanted are missing."""
        ids = list(job_ids)
        if not ids:
            return {}
        runs = cast("list[str | None]", self._redis.mget([_cancel_key(job_id) for job_id in ids]))
        return {job_id: int(run) for job_id, run in zip(ids, runs, strict=True) if run}

    def end(self, job_id: UUID, run: int, image_ids: Iterable[UUID], *, may_wait: bool) -> None:
        """The run has ended, well or not: tells all nodes, and forgets what was noted of it.

        What stays for a while is the word that nobody wants its images: for minutes, as a message may come
        again whose node died right after its work; or where messages of it `may_wait` in a queue, as long as
        they may.
        """
        noted = [
            key(image_id, run) for image_id in image_ids for key in (_attempts_key, _alone_key, _result_key)
        ]
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(_progress_key(job_id), _previews_key(job_id), *noted)
        pipe.set(_cancel_key(job_id), run, ex=FLAG_TTL_S if may_wait else ENDED_TTL_S)
        pipe.execute()

    def report_progress(self, fractions: Mapping[UUID, Mapping[int, float]]) -> None:
        """How far (0 to 1) images of these jobs are, by index."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id, by_index in fractions.items():
            words = [word for index, done in by_index.items() for word in (str(index), f"{done:.4f}")]
            pipe.hset(_progress_key(job_id), items=words)
            pipe.expire(_progress_key(job_id), 3600)
        pipe.execute()

    def progress(self, job_ids: Iterable[UUID]) -> dict[UUID, dict[int, float]]:
        """How far the images in hand are, by index."""
        ids = list(job_ids)
        if not ids:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hgetall(_progress_key(job_id))
        answers = cast("list[dict[str, str]]", pipe.execute())
        return {
            job_id: {int(index): float(fraction) for index, fraction in answer.items()}
            for job_id, answer in zip(ids, answers, strict=True)
        }

    def report_preview(self, job_id: UUID, index: int, jpeg: bytes) -> None:
        """A small picture of this image of the job, as it is now; it replaces the one before."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hset(_previews_key(job_id), str(index), base64.b64encode(jpeg).decode())
        pipe.expire(_previews_key(job_id), PREVIEW_TTL_S)
        pipe.execute()

    def previews(self, job_id: UUID) -> dict[int, str]:
        """The newest previews of the job's images, by index: JPEG, in base64."""
        answer = cast("dict[str, str]", self._redis.hgetall(_previews_key(job_id)))
        return {int(index): jpeg for index, jpeg in answer.items()}

    # -- the backend among itself ----------------------------------------------------------------------

    def take_turn(self, what: str, seconds: int) -> bool:
        """Whether nobody else is at it; then nobody else is, until `end_turn` or for so long."""
        return bool(self._redis.set(_turn_key(what), 1, nx=True, ex=seconds))

    def end_turn(self, what: str) -> None:
        """Others may."""
        self._redis.delete(_turn_key(what))

    def take_place(self, where: str, who: str, places: int, seconds: int) -> bool:
        """Takes one of so many places, for so long at most. False: all are taken, or it is to be left alone.

        Whoever has one already keeps it, for so long from now.
        """
        script = self._redis.register_script(_TAKE_PLACE)
        return bool(script(keys=[_places_key(where), _rest_key(where)], args=[who, places, seconds]))

    def leave_place(self, where: str, who: str, *, was_served: bool = False) -> None:
        """Gives it back. Who was served there ends a row of refusals."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrem(_places_key(where), who)
        if was_served:
            pipe.delete(_refusals_key(where))
        pipe.execute()

    def count_refusal(self, where: str) -> int:
        """How many there were in a row, with this one."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.incr(_refusals_key(where))
        pipe.expire(_refusals_key(where), REFUSALS_TTL_S)
        return int(pipe.execute()[0])

    def leave_alone(self, where: str, seconds: int) -> None:
        """Nobody takes a place there for so long."""
        self._redis.set(_rest_key(where), 1, ex=seconds)

    def rests_for(self, where: str) -> int:
        """How many seconds it is to be left alone still; 0: not any more."""
        return max(math.ceil(self._redis.pttl(_rest_key(where)) / 1000), 0)

    # -- images ---------------------------------------------------------------------------------------

    def receive(self, job_id: UUID, image_id: UUID, run: int) -> Delivery:
        """Counts that this run of the image was delivered once more, and tells what else is known of it."""
        attempts = _attempts_key(image_id, run)
        pipe = self._redis.pipeline(transaction=False)
        pipe.incr(attempts)
        pipe.expire(attempts, FLAG_TTL_S)
        pipe.get(_cancel_key(job_id))
        pipe.get(_result_key(image_id, run))
        number, _, unwanted_run, kept = pipe.execute()
        first_after_all = max(int(number), 1)  # a count that was forgotten may have been taken back since
        return Delivery(first_after_all, unwanted_run is not None and int(unwanted_run) >= run, kept)

    def take_back_attempt(self, image_id: UUID, run: int) -> None:
        """Undoes the count of `receive` for an image that was handed back before anything was done for it."""
        key = _attempts_key(image_id, run)
        pipe = self._redis.pipeline(transaction=True)
        pipe.decr(key)
        pipe.expire(key, FLAG_TTL_S)
        pipe.execute()

    def count_alone(self, image_id: UUID, run: int, by: int = 1) -> None:
        """This run of the image is begun again, in a batch of its own: if the node dies now, it is to blame.

        `by` -1 takes it back.
        """
        key = _alone_key(image_id, run)
        pipe = self._redis.pipeline(transaction=True)
        pipe.incrby(key, by)
        pipe.expire(key, FLAG_TTL_S)
        pipe.execute()

    def times_alone(self, image_id: UUID, run: int) -> int:
        """How often `count_alone` was called for it."""
        return int(cast("str | None", self._redis.get(_alone_key(image_id, run))) or 0)

    def keep_results(self, results: Iterable[tuple[UUID, int, str]]) -> None:
        """Keeps the first result of these runs of images, for the case that their messages come twice.

        Each is an image's id, its run, and the result as JSON.
        """
        pipe = self._redis.pipeline(transaction=False)
        for image_id, run, text in results:
            pipe.set(_result_key(image_id, run), text, nx=True, ex=FLAG_TTL_S)
        pipe.execute()
