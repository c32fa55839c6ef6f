"""Signing secrets of Standard Webhooks: derived from the server's own, so that none must be kept."""

import base64
import hashlib
import hmac
from uuid import UUID


def owner_secret(secret: bytes, owner: str, version: int = 1) -> str:
    """What webhooks of the owner's single jobs are signed with."""
    return _derived(secret, f"webhook/{owner}" if version == 1 else f"webhook owner {version}/{owner}")


def endpoint_secret(secret: bytes, endpoint_id: UUID, version: int) -> str:
    """What deliveries to an endpoint are signed with."""
    return _derived(secret, f"webhook endpoint {version}/{endpoint_id}")


def _derived(secret: bytes, what: str) -> str:
    return "whsec_" + base64.b64encode(hmac.new(secret, what.encode(), hashlib.sha256).digest()).decode()
