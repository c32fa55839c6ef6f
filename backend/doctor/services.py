"""Everything that is spoken to over a connection: asked once, with short timeouts."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import redis
from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import KombuError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from backend import keys
from backend.db import Database
from backend.doctor.findings import Finding, fail, off, ok, warn
from backend.doctor.variables import masked
from backend.errors import DatabaseUnavailable, FanfareError, LLMError, NotifyError, StorageError
from backend.llm.base import LLM
from backend.notify.mail import MailNotifier
from backend.resources import open_mail
from backend.serving import is_loopback
from backend.settings import Settings
from backend.sign_in import key_set
from backend.storage.base import Storage
from contract.addresses import amqp_tls, celery_url
from contract.messages import NodeAnnouncement
from contract.queues import transport_options
from contract.signals import Signals, connect

TIMEOUT_S = 3
PROBE = b"fanfare doctor"
PROBE_TYPE = "image/png"


def database(settings: Settings) -> Finding:
    """Does it answer, and is it up to date."""
    url = settings.database_url
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        return fail(
            "database", "the URL can't be read", "FANFARE_DATABASE_URL: postgresql://... or sqlite:///..."
        )
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return off("database", f"{shown} is not there yet: `fanfare up` makes it")
    opened = None
    try:
        opened = Database(url)
        opened.check()
    except DatabaseUnavailable as exc:
        if "migrate" in exc.detail:
            return fail("database", f"{shown} is not up to date", "Run `fanfare migrate`.")
        return fail("database", f"{shown} doesn't answer", "Is it running, and FANFARE_DATABASE_URL right?")
    except (SQLAlchemyError, ImportError) as exc:
        return fail("database", f"{shown}: {type(exc).__name__}", "Check FANFARE_DATABASE_URL.")
    finally:
        if opened:
            opened.close()
    return ok("database", f"{shown}, up to date")


def broker(url: str) -> Finding:
    """Does it let us in."""
    try:
        with Connection(
            celery_url(url),
            ssl=amqp_tls(url) or False,
            connect_timeout=TIMEOUT_S,
            transport_options=transport_options(url) | {"socket_timeout": TIMEOUT_S},
        ) as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=TIMEOUT_S)
    except (KombuError, AMQPError, OSError, redis.RedisError, KeyError, ValueError) as exc:
        reason = type(exc.__cause__ or exc).__name__
        return fail("broker", f"{masked(url)}: {reason}", "Is it running, and FANFARE_BROKER_URL right?")
    return ok("broker", masked(url))


def result_store(url: str) -> Iterator[Finding]:
    """Is it a Redis that keeps what it is given."""
    if not url.startswith(("redis", "unix", "sentinel", "valkey")):
        mend = "Set FANFARE_RESULT_URL to a Redis: results and nodes' signs of life are kept there."
        yield fail("result store", f"{masked(url) or 'none'} is not Redis", mend)
        return
    try:
        with connect(url) as client:
            client.ping()
            yield ok("result store", masked(url))
            yield from _redis_configuration(client)
    except (redis.RedisError, ValueError) as exc:
        mend = "Is it running, and FANFARE_RESULT_URL (or FANFARE_BROKER_URL) right?"
        yield fail("result store", f"{masked(url)}: {type(exc).__name__}", mend)


def _redis_configuration(client: "redis.Redis") -> Iterator[Finding]:
    try:
        configured = {name: client.config_get(name).get(name) for name in ("maxmemory-policy", "appendonly")}
    except redis.ResponseError:  # hosted ones don't tell
        yield warn(
            "result store", "it doesn't tell its configuration", "Be sure of maxmemory-policy noeviction."
        )
        return
    if configured["maxmemory-policy"] != "noeviction":
        text = f"maxmemory-policy is {configured['maxmemory-policy']}: when full, it drops jobs"
        yield warn("result store", text, "Set it to noeviction.")
    if configured["appendonly"] != "yes":
        text = "appendonly is off: a restart loses the queue (the sweep finds the jobs again, later)"
        yield warn("result store", text, "Set appendonly yes.")


def mail(settings: Settings) -> Iterator[Finding]:
    """Does the mail server, if there is one, let us in."""
    notifier = open_mail(settings.model_copy(update={"webhook_timeout_s": TIMEOUT_S}))
    if not isinstance(notifier, MailNotifier):
        return
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        notifier.check()
    except NotifyError as exc:
        yield fail("mail", f"{where}: {exc.detail}", "Check FANFARE_SMTP_HOST and the others beside it.")
        return
    yield ok("mail", f"{where}, as {settings.smtp_from}")


def storage(adapter: Storage, settings: Settings, *, api_runs: bool) -> Iterator[Finding]:
    """Writes, reads and deletes an object; then once more as a node and a client would, by signed URLs."""
    where = masked(settings.storage_url)
    key = f"doctor/{secrets.token_hex(8)}.png"
    try:
        adapter.check()
        yield ok("storage", where)
        if settings.storage_url.startswith("file:") and not api_runs:
            yield off("file URLs", "served by the API, which is not running")
        else:
            yield _signed_round_trip(adapter, key)
        adapter.delete([key])
    except StorageError as exc:
        yield fail(
            "storage", f"{where}: {exc.detail}", "Check FANFARE_STORAGE_URL, its keys and permissions."
        )


def _signed_round_trip(adapter: Storage, key: str) -> Finding:
    up = adapter.upload_url(key, content_type=PROBE_TYPE, max_bytes=1024, expires_in=60)
    try:
        put = httpx.put(up.url, content=PROBE, headers=up.headers, timeout=TIMEOUT_S)
        down = adapter.download_url(key, expires_in=60)
        got = httpx.get(down.url, timeout=TIMEOUT_S)
    except httpx.HTTPError as exc:
        return fail("file URLs", f"{type(exc).__name__} at {_origin(up.url)}", _MEND_URLS)
    if not put.is_success or got.content != PROBE:
        return fail("file URLs", f"upload {put.status_code}, download {got.status_code}", _MEND_URLS)
    return ok("file URLs", f"nodes upload to {_origin(up.url)}, clients download from {_origin(down.url)}")


_MEND_URLS = (
    "Nodes and clients must reach these: FANFARE_NODE_URL, FANFARE_PUBLIC_URL, FANFARE_S3_*_ENDPOINT_URL, "
    "FANFARE_SUPABASE_*_URL."
)


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def llm(adapter: LLM, settings: Settings) -> Finding:
    """Could it write prompts now."""
    name = adapter.name if settings.llm == "template" else f"{adapter.name}, {settings.llm_model}"
    try:
        adapter.check()
    except LLMError as exc:
        return fail(
            "llm", f"{name}: {exc.detail}", "Check FANFARE_LLM_URL, FANFARE_LLM_API_KEY, FANFARE_LLM_MODEL."
        )
    return ok("llm", name)


def nodes(result_url: str, settings: Settings) -> Finding:
    """Is somebody there to make the images."""
    try:
        live = Signals(connect(result_url)).nodes()
    except (redis.RedisError, ValueError):
        return off("nodes", "the result store doesn't answer, so none is known")
    if not live:
        return warn("nodes", "none is alive: images wait", "Start one: `fanfare-node`, or `fanfare up`.")
    served = {card.name for node in live for card in node.models}
    if settings.default_model not in served:
        text = f"none of the {len(live)} live ones serves the default model {settings.default_model}"
        return warn("nodes", text, f"FANFARE_DEFAULT_MODEL: one of {', '.join(sorted(served))}.")
    return ok("nodes", "; ".join(_node(node) for node in live))


def _node(node: NodeAnnouncement) -> str:
    return f"{node.node} ({node.device.kind}: {', '.join(card.name for card in node.models)}; {node.state})"


def api(url: str) -> Finding:
    """Is it ready."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as exc:
        return fail("api", f"{url}: {type(exc).__name__}", "Look at its log.")
    if answer.status_code != httpx.codes.OK:
        return fail(
            "api", f"{url} is not ready ({answer.status_code})", "Look at its log, and at the lines above."
        )
    return ok("api", url)


def addresses(settings: Settings) -> Iterator[Finding]:
    """Do the addresses that are given out make sense."""
    names = {"FANFARE_PUBLIC_URL": settings.public_url, "FANFARE_NODE_URL": settings.node_url}
    opened = not is_loopback(settings.api_host)
    for name, url in names.items():
        parsed = httpx.URL(url) if url.startswith(("http://", "https://")) else None
        if parsed is None or not parsed.host:
            yield fail(
                "addresses", f"{name} is {url!r}", "It must begin with http:// or https:// and name a host."
            )
        elif opened and is_loopback(parsed.host):
            text = f"the API is open to others, but {name} is {url}: only this machine can use its file URLs"
            yield warn("addresses", text, f"Set {name} to what others reach it by.")
        elif parsed.scheme == "http" and not is_loopback(parsed.host) and name == "FANFARE_PUBLIC_URL":
            yield warn("addresses", f"{name} is plain http: keys can be overheard", "Put TLS before it.")


def access(settings: Settings) -> Iterator[Finding]:
    """Who may come in."""
    if settings.api_anonymous:
        yield warn(
            "access", "anybody who reaches the API may use it", "Right only where something else guards it."
        )
    secret = settings.secret_key.get_secret_value()
    if secret and len(secret) < 32:
        mend = 'python -c "import secrets; print(secrets.token_hex(32))"'
        yield warn("access", "FANFARE_SECRET_KEY is shorter than 32 characters", mend)
    if is_loopback(settings.api_host) or settings.api_anonymous:
        return
    opened = Database(settings.database_url)
    try:
        with opened.read_scope() as session:
            if not keys.any_exist(session):
                mend = "`fanfare keys create NAME`, then start again."
                yield warn("access", f"no API key: it listens on loopback, not on {settings.api_host}", mend)
    except (FanfareError, SQLAlchemyError):
        pass  # the database's own line tells
    finally:
        opened.close()


def sign_in(settings: Settings) -> Iterator[Finding]:
    """Can the keys be had that users' tokens are signed with."""
    if not settings.supabase_sign_in:
        return
    url = settings.supabase_jwks_url
    if url.startswith("http://") and not is_loopback(httpx.URL(url).host):
        mend = "FANFARE_SUPABASE_URL: https://..."
        yield warn("sign-in", f"{url} is plain http: who is between chooses the keys", mend)
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S).raise_for_status()
        known = key_set.parse(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, key_set.UnusableKeys) as exc:
        yield fail("sign-in", f"{url}: {type(exc).__name__}", "Is FANFARE_SUPABASE_URL right, and reachable?")
        return
    if not known and not settings.supabase_jwt_secret.get_secret_value():
        mend = "Make signing keys in the project's settings, or set FANFARE_SUPABASE_JWT_SECRET."
        yield fail("sign-in", f"{url}: the project has no signing keys, and no secret is set", mend)
        return
    yield ok("sign-in", f"users of {settings.supabase_url}, {len(known)} keys")
