"""Signatures: ours, whole and in time, or none."""

import dataclasses
import time

import pytest

from backend.errors import SignatureExpired, SignatureInvalid
from backend.storage.signing import Permit, Signer, steady_expiry

SIGNER = Signer(b"secret")


def a_permit() -> Permit:
    return Permit("PUT", "a/b.png", int(time.time()) + 60, "image/png", 1000)


def test_what_was_signed_is_good() -> None:
    SIGNER.verify(a_permit(), SIGNER.sign(a_permit()))


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "GET"},
        {"key": "a/c.png"},
        {"expires": int(time.time()) + 10**6},
        {"content_type": "text/html"},
        {"max_bytes": 10**9},
    ],
)
def test_every_field_is_signed(changed: dict[str, object]) -> None:
    signature = SIGNER.sign(a_permit())

    with pytest.raises(SignatureInvalid):
        SIGNER.verify(dataclasses.replace(a_permit(), **changed), signature)  # type: ignore[arg-type]


@pytest.mark.parametrize("signature", ["", "x", "ä" * 43, "A" * 43, "\x00", "=" * 43])
def test_what_is_no_signature(signature: str) -> None:
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(a_permit(), signature)


def test_somebody_elses_signature() -> None:
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(a_permit(), Signer(b"other secret").sign(a_permit()))


def test_an_expired_one_says_so_only_if_it_was_ours() -> None:
    old = dataclasses.replace(a_permit(), expires=int(time.time()) - 1)

    with pytest.raises(SignatureExpired):
        SIGNER.verify(old, SIGNER.sign(old))
    with pytest.raises(SignatureInvalid):
        SIGNER.verify(old, Signer(b"other secret").sign(old))


def test_fields_can_not_be_shifted_into_each_other() -> None:
    one = Permit("PUT", "a", 1, "b,c", 2)
    other = Permit("PUT", 'a",1,"b', 1, "c", 2)

    assert SIGNER.sign(one) != SIGNER.sign(other)


@pytest.mark.parametrize("expires_in", [1, 2, 60, 3600, 86400])
def test_an_expiry_is_steady_and_long_enough(expires_in: int) -> None:
    start = 1_800_000_000.3
    moments = [start + expires_in * step / 100 for step in range(100)]

    expiries = [steady_expiry(now, expires_in) for now in moments]

    assert all(expiry - now >= expires_in for expiry, now in zip(expiries, moments, strict=True))
    assert all(expiry - now <= expires_in * 1.5 + 2 for expiry, now in zip(expiries, moments, strict=True))
    assert len(set(expiries)) <= 3
