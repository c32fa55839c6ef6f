"""What a key is, and what content type goes with it: the same for every adapter."""

import re

from backend.errors import InvalidKey

MAX_KEY_LENGTH = 512  # characters, all of them ASCII
OTHER = "application/octet-stream"
CHECKS = "check-"  # how the keys begin that `check` writes, and deletes again

# Whatever is stored is served to browsers under its extension's type: nothing in here can run a script.
CONTENT_TYPES = {
    "webp": "image/webp",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "avif": "image/avif",
    "json": "application/json",
    "txt": "text/plain",
}

# A segment never begins with a dot: that keeps "..", hidden files and drafts out of reach.
_SEGMENT = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


def check_key(key: str) -> str:
    """The key itself. Raises `InvalidKey` for what isn't one."""
    if not is_key(key):
        raise InvalidKey
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, if a key may begin with it. Raises `InvalidKey`."""
    if prefix:
        check_key(f"{prefix}x")
    return prefix


def is_key(name: str) -> bool:
    """Whether it is one: others may keep other things beside ours."""
    return len(name) <= MAX_KEY_LENGTH and _KEY.fullmatch(name) is not None


def content_type_of(key: str) -> str:
    """The content type that the key's extension stands for."""
    _, _, extension = key.rpartition("/")[2].rpartition(".")
    return CONTENT_TYPES.get(extension, OTHER)


def check_content_type(key: str, content_type: str) -> None:
    """Raises `InvalidKey` where the key's extension says something else than the content type."""
    expected = content_type_of(key)
    if content_type != expected:
        raise InvalidKey(f"A key with this extension is for {expected}, not for {content_type}.")
