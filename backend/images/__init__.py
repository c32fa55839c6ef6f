"""Pictures in, thumbnails and placeholders out. Pure Pillow: bytes in, bytes out, no IO.

Everything may be called from several threads at once, and gives the same bytes each time.
"""

from backend.images.contact_sheet import contact_sheet
from backend.images.opening import open_original
from backend.images.placeholder import blurhash_of, dominant_color
from backend.images.preparing import Prepared, prepare
from backend.images.thumbnails import Thumbnail, ThumbnailFormat, make_thumbnails

__all__ = [
    "Prepared",
    "Thumbnail",
    "ThumbnailFormat",
    "blurhash_of",
    "contact_sheet",
    "dominant_color",
    "make_thumbnails",
    "open_original",
    "prepare",
]
