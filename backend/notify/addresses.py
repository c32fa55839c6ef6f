"""Which addresses on the network a URL from outside may lead to: the rules, and the look-up under them.

Whoever fetches or posts to a URL that a user gave resolves the name here, refuses it unless every address
passes, and then connects to one of these addresses and to no other: a name may answer differently a
moment later.
"""

import queue
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Resolver = Callable[[str], Sequence[IPAddress]]

_MAX_LOOKUPS = 64  # at once: a name server that never answers must not gather threads without end
_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)


class NameNotFound(Exception):
    """The name has no address."""


class LookupUnavailable(Exception):
    """The name could not be looked up now; that says nothing about the name."""


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


# Open nothing to a user even on a developer's machine: credentials of the cloud are served there.
_METADATA = _networks(
    "169.254.0.0/16",  # link-local, with 169.254.169.254 of nearly every cloud
    "fe80::/10",
    "fd00:ec2::/32",  # AWS over IPv6
    "fd20:ce::254/128",  # Google Cloud over IPv6
    "100.100.100.200/32",  # Alibaba Cloud
    "168.63.129.16/32",  # Azure: looks public, is the host's own agent
    "192.0.0.192/32",  # Oracle Cloud
)

# Reached only from here; `allow_private` opens these.
_PRIVATE = _networks(
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # carrier-grade NAT, and Tailscale
    "::1/128",
    "fc00::/7",
)

# From IANA's registries of special-purpose addresses: nobody's web server lives there.
_NOBODY_V4 = _networks(
    "0.0.0.0/8",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",  # 6to4 relays
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, with the broadcast address
)

_GLOBAL_UNICAST_V6 = ip_network("2000::/3")  # all that is handed out for the open internet
_NOBODY_V6 = _networks(
    "2001::/23",  # protocol assignments; Teredo, which carries an IPv4 address of anybody's choice
    "2001:db8::/32",
    "2002::/16",  # 6to4: likewise
    "2620:4f:8000::/48",
    "3fff::/20",
)

_V4_MAPPED = ip_network("::ffff:0:0/96")
_NAT64 = ip_network("64:ff9b::/96")  # what DNS64 answers on a network without IPv4


def _within(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address.version == net.version and address in net for net in networks)


def is_allowed(address: IPAddress, *, allow_private: bool) -> bool:
    """Whether a URL from outside may lead to this address.

    Without `allow_private` only the open internet passes. With it loopback and private networks pass too,
    but never link-local and metadata addresses, multicast, reserved or unspecified ones. An IPv6 address
    that stands for an IPv4 one (v4-mapped, NAT64) is judged as that; 6to4, Teredo and the rest never pass.
    """
    if isinstance(address, IPv6Address) and _within(address, (_V4_MAPPED, _NAT64)):
        return is_allowed(IPv4Address(int(address) & 0xFFFFFFFF), allow_private=allow_private)
    if _within(address, _METADATA):
        return False
    if _within(address, _PRIVATE):
        return allow_private
    if isinstance(address, IPv4Address):
        return not _within(address, _NOBODY_V4)
    return address in _GLOBAL_UNICAST_V6 and not _within(address, _NOBODY_V6)


def system_resolver(host: str) -> list[IPAddress]:
    """The addresses that this machine's resolver knows for `host`, best first.

    Raises `NameNotFound` or `LookupUnavailable`. Takes as long as the system likes: see `resolve`.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if exc.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NameNotFound(host) from exc
        raise LookupUnavailable(host) from exc
    except (OSError, UnicodeError) as exc:
        raise LookupUnavailable(host) from exc
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def resolve(host: str, *, timeout_s: float, resolver: Resolver = system_resolver) -> Sequence[IPAddress]:
    """All addresses of `host`, a name or an address, within `timeout_s` seconds.

    Raises `NameNotFound`, or `LookupUnavailable` when no answer could be had in time.
    """
    try:
        return (ip_address(host),)
    except ValueError:
        return _look_up(host, timeout_s, resolver)


def _look_up(host: str, timeout_s: float, resolver: Resolver) -> Sequence[IPAddress]:
    # getaddrinfo has no timeout of its own. A thread that is late is left to end by itself.
    if not _lookups.acquire(blocking=False):
        raise LookupUnavailable(host)
    answer: queue.SimpleQueue[Sequence[IPAddress] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(resolver(host))
        except (NameNotFound, LookupUnavailable) as exc:
            answer.put(exc)
        finally:
            _lookups.release()

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty as exc:
        raise LookupUnavailable(host) from exc
    if isinstance(found, Exception):
        raise found
    if not found:
        raise NameNotFound(host)
    return found
