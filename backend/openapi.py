"""The OpenAPI document, without any service."""

from typing import Any

from backend.main import create_app
from backend.settings import Settings


def document() -> dict[str, Any]:
    """What `/openapi.json` serves. An app opens its resources when it starts, and this one never does."""
    return create_app(Settings()).openapi()
