"""Who a `mailto:` URL names, and who may be written to."""

import re
from collections.abc import Sequence

from backend.errors import TargetRefused

SCHEME = "mailto:"
MAX_ADDRESS_CHARACTERS = 254

# Plain ASCII and nothing that has to be quoted: what is checked is what stands in header and envelope.
_LOCAL = r"(?=[^@]{1,64}@)[A-Za-z0-9!#$&'*+=^_`{|}~-]+(?:\.[A-Za-z0-9!#$&'*+=^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_LOCAL}@(?:{_LABEL}\.)+(?![0-9]+$){_LABEL}")


def parse_mailto(url: str) -> str:
    """The one address that is written to. Raises `TargetRefused`."""
    if url[: len(SCHEME)].lower() != SCHEME:
        raise TargetRefused("An e-mail's target must begin with mailto:.")
    address = url[len(SCHEME) :]
    if "?" in address or "," in address:
        raise TargetRefused("Write mailto: and one address: no other recipients, and no headers.")
    return check_address(address)


def check_address(address: str) -> str:
    """The address itself. Raises `TargetRefused` for what is none, or none that we write to."""
    if len(address) > MAX_ADDRESS_CHARACTERS or not _ADDRESS.fullmatch(address):
        raise TargetRefused(
            "This is not a valid e-mail address (a domain in other letters is written xn--...)."
        )
    return address


def is_allowed(address: str, allowed: Sequence[str]) -> bool:
    """Whether it, or its domain, is among them; if there are none, everybody is."""
    lowered = address.lower()
    known = {one.lower().removeprefix("@") for one in allowed}
    return not known or lowered in known or lowered.rpartition("@")[2] in known
