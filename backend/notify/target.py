"""What a URL must look like before anything is asked of the network."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import httpx

from backend.errors import TargetRefused

MAX_URL_CHARACTERS = 2048
MAX_PORT = 65535

_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_LOOKS_LIKE_IPV4 = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")  # as browsers and libc see it: 127.1, 0x7f.1
_HAS_USERINFO = re.compile(r"[^/?#]*//[^/?#]*@")  # an empty one as well
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\\]")

# Other protocols live at the low ports, but for the web's own two; at the high ones those that the Fetch
# standard forbids to browsers (a request could be taken for a command), and databases and brokers.
_LOW_PORTS = range(1024)
_WEB_PORTS = {"http": 80, "https": 443}
_REFUSED_HIGH_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
    | {3306, 5432, 5672, 6379, 11211}
)


@dataclass(frozen=True)
class Target:
    """A URL taken apart once, so that what is checked is what is called."""

    scheme: str  # http or https
    host: str  # a lower-case ASCII name or an address, without brackets
    port: int
    authority: str  # host and port, for the Host header
    path: str  # path and query, percent-encoded


def parse_target(url: str, *, allow_http: bool) -> Target:
    """Takes the URL apart. Raises `TargetRefused` with a reason that the one who gave it can act on."""
    parsed = _parse(url)
    allowed = ("https", "http") if allow_http else ("https",)
    if parsed.scheme not in allowed:
        raise TargetRefused(f"The URL must begin with {' or '.join(f'{scheme}://' for scheme in allowed)}.")
    if _HAS_USERINFO.match(url):
        raise TargetRefused("The URL must not carry a user name or password.")
    host = parsed.raw_host.decode("ascii")
    _check_host(host)
    usual_port = _WEB_PORTS[parsed.scheme]
    port = usual_port if parsed.port is None else parsed.port
    _check_port(port)
    authority = f"[{host}]" if ":" in host else host
    authority += "" if port == usual_port else f":{port}"
    return Target(parsed.scheme, host, port, authority, parsed.raw_path.decode("ascii"))


def _check_port(port: int) -> None:
    if port > MAX_PORT:
        raise TargetRefused(f"There is no port {port}.")
    web = port in _WEB_PORTS.values() or port not in _LOW_PORTS
    if not web or port in _REFUSED_HIGH_PORTS:
        raise TargetRefused(f"Port {port} belongs to another protocol.")


def _parse(url: str) -> httpx.URL:
    if len(url) > MAX_URL_CHARACTERS:
        raise TargetRefused(f"The URL is longer than {MAX_URL_CHARACTERS} characters.")
    if _NOT_IN_URLS.search(url):
        raise TargetRefused("The URL holds a space, a backslash or a control character.")
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise TargetRefused("This is not a valid URL.") from exc


def _check_host(host: str) -> None:
    if ":" in host:
        _check_ipv6(host)
    elif _LOOKS_LIKE_IPV4.fullmatch(host):
        _check_ipv4(host)
    elif not _NAME.fullmatch(host):
        raise TargetRefused("The URL does not name a valid host.")


def _check_ipv6(host: str) -> None:
    try:
        zoned = IPv6Address(host).scope_id is not None
    except AddressValueError as exc:
        raise TargetRefused("The URL does not name a valid IPv6 address.") from exc
    if zoned:
        raise TargetRefused("An IPv6 address with a zone is of this machine's own network.")


def _check_ipv4(host: str) -> None:
    """Refuses the spellings that some resolvers take for an address: octal, hexadecimal, short or long."""
    try:
        IPv4Address(host)
    except AddressValueError as exc:
        raise TargetRefused("An IPv4 address must be written as four decimal numbers.") from exc
