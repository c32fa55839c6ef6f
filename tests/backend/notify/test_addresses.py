"""The rules about addresses, and the look-up under them."""

import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from backend.notify.addresses import (
    IPAddress,
    LookupUnavailable,
    NameNotFound,
    is_allowed,
    resolve,
    system_resolver,
)

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2606:4700::1111"]
PUBLIC_IN_DISGUISE = ["::ffff:8.8.8.8", "64:ff9b::808:808"]

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
    "fc00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::c0a8:101",
]

NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::8.8.8.8",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "2001::7f00:1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "64:ff9b:1::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "100::1",
    "3fff::1",
    "4000::1",
]


@pytest.mark.parametrize("text", PUBLIC + PUBLIC_IN_DISGUISE)
@pytest.mark.parametrize("allow_private", [False, True])
def test_the_open_internet_passes(text: str, allow_private: bool) -> None:
    assert is_allowed(ip_address(text), allow_private=allow_private)


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_pass_only_where_that_is_allowed(text: str) -> None:
    assert not is_allowed(ip_address(text), allow_private=False)
    assert is_allowed(ip_address(text), allow_private=True)


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_no_web_server_has_never_passes(text: str, allow_private: bool) -> None:
    assert not is_allowed(ip_address(text), allow_private=allow_private)


def test_an_address_is_its_own_answer() -> None:
    # Given a resolver that would fail if it were asked
    def resolver(host: str) -> Sequence[IPAddress]:
        raise NameNotFound(host)

    # Then it isn't
    assert resolve("8.8.8.8", timeout_s=1, resolver=resolver) == (ip_address("8.8.8.8"),)
    assert resolve("::1", timeout_s=1, resolver=resolver) == (ip_address("::1"),)


def test_the_system_knows_localhost() -> None:
    assert ip_address("127.0.0.1") in resolve("localhost", timeout_s=5)


def test_a_name_that_can_not_exist_is_never_found() -> None:
    with pytest.raises((NameNotFound, LookupUnavailable)):
        system_resolver("no-such-host.invalid")


def test_an_empty_answer_is_no_answer() -> None:
    with pytest.raises(NameNotFound):
        resolve("empty.example", timeout_s=1, resolver=lambda _: [])


def test_a_slow_look_up_is_left_alone() -> None:
    # Given a name server that does not answer
    answer = threading.Event()

    def resolver(host: str) -> Sequence[IPAddress]:
        answer.wait(10)
        raise LookupUnavailable(host)

    # When a name is looked up
    began = time.monotonic()
    with pytest.raises(LookupUnavailable):
        resolve("slow.example", timeout_s=0.2, resolver=resolver)

    # Then nobody waits longer than he said
    assert time.monotonic() - began < 8
    answer.set()
