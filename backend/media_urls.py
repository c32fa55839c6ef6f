"""URLs that last: of images that pages and CSV files name for years, and not for an hour.

Whoever has one may have the image: its signature stands for that, or the CDN in front of a public bucket.
They end when the image is deleted.
"""

from backend.resources import Resources
from backend.storage.signing import Permit, Signer

FOREVER = 253_402_300_799  # Unix time: the last second of the year 9999
ROUTE = "/v1/media/"


def media_url(resources: Resources, key: str) -> str:
    """The object's URL, for as long as it exists."""
    settings = resources.settings
    if settings.media_url:
        return f"{settings.media_url}/{key}"
    signature = Signer(resources.secret).sign(_permit(key))
    return f"{settings.public_url}{ROUTE}{key}?signature={signature}"


def verify(resources: Resources, key: str, signature: str) -> None:
    """Returns if the signature is that of the key's URL. Raises `SignatureInvalid`."""
    Signer(resources.secret).verify(_permit(key), signature)


def _permit(key: str) -> Permit:
    return Permit("MEDIA", key, FOREVER)
