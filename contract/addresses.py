"""What URLs of brokers and result stores say, beyond what Celery understands of them."""

import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SENTINEL_PORT: Final = 26379
MASTER_NAME: Final = "master_name"  # in the query: Celery's own word for it
_CERTIFICATES: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}  # as rediss:// URLs have it


def is_amqp(url: str) -> bool:
    """Whether it is RabbitMQ's."""
    return url.startswith(("amqp", "pyamqp"))


def is_redis(url: str) -> bool:
    """Whether it is a Redis, reached in whatever way."""
    return url.startswith(("redis", "unix", "sentinel"))


@dataclass(frozen=True)
class Sentinels:
    """Those who know where the master is, and what is said to it."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    username: str | None
    password: str | None
    database: int

    @staticmethod
    def patience() -> dict[str, Any]:
        """How long one of them may take. redis-py would try a dead one ten times before it asks the next."""
        # Imported where it is needed: `fanfare-node health` reads URLs too, is called often, and is quick
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return {"socket_timeout": 2, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 0)}

    def urls(self) -> str:
        """For Celery: each with all that the master wants to know, since any of them may be taken."""
        user = quote(self.username or "", safe="")
        login = f"{user}:{quote(self.password, safe='')}@" if self.password else ""
        return ";".join(
            f"sentinel://{login}{f'[{host}]' if ':' in host else host}:{port}/{self.database}"
            for host, port in self.hosts
        )


@cache
def sentinels(url: str) -> Sentinels | None:
    """Reads `sentinel://:password@host:26379/0;sentinel://other:26379?master_name=mymaster`.

    User, password, database and master's name may stand in any of the parts. None for all other URLs.
    Raises `ValueError`.
    """
    if not url.startswith("sentinel://"):
        return None
    parts = [urlsplit(part if "://" in part else f"sentinel://{part}") for part in url.split(";") if part]
    queries = [value for part in parts for name, value in parse_qsl(part.query) if name == MASTER_NAME]
    if not queries:
        raise ValueError(f"a sentinel:// URL must name the master: ...?{MASTER_NAME}=mymaster")
    database = next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
    return Sentinels(
        hosts=tuple((part.hostname or "localhost", part.port or SENTINEL_PORT) for part in parts),
        master=queries[0],
        username=next((unquote(part.username) for part in parts if part.username), None),
        password=next((unquote(part.password) for part in parts if part.password), None),
        database=int(database),
    )


def check(url: str) -> None:
    """Raises `ValueError` for what can't be understood."""
    sentinels(url)
    amqp_tls(url)


def celery_url(url: str) -> str:
    """The same for Celery, which takes no query on other URLs than Redis', and wants to be told there whether
    the server's certificate is checked. It is.
    """
    if found := sentinels(url):
        return found.urls()
    if is_amqp(url):
        return ";".join(part.partition("?")[0] for part in url.split(";"))
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def amqp_tls(url: str) -> dict[str, Any] | None:
    """How the server's certificate is checked, for `amqps://`; None without TLS.

    The query says it as that of rediss:// does: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_cert_reqs`. Raises `ValueError`.
    """
    parts = urlsplit(url.partition(";")[0])
    if parts.scheme != "amqps":
        return None
    query = dict(parse_qsl(parts.query))
    wanted = query.get("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
    if wanted not in _CERTIFICATES:
        raise ValueError(f"ssl_cert_reqs is {', '.join(_CERTIFICATES)}, not {wanted}")
    files = {name: query.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile")}
    return {
        "cert_reqs": _CERTIFICATES[wanted],
        "server_hostname": None if wanted == "none" else parts.hostname,  # with one its name is checked, too
        **{name: value for name, value in files.items() if value},
    }
