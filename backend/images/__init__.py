"""Pictures in, thumbnails, placeholders and clean files out. Pure Pillow: bytes in, bytes out, no IO.

Everything may be called from several threads at once, and gives the same bytes each time.
"""

from backend.images.contact_sheet import contact_sheet
from backend.images.opening import open_original
from backend.images.optimizing import UPLOADS, Optimized, optimize, resize_by
from backend.images.placeholder import blurhash_of, dominant_color
from backend.images.preparing import Prepared, prepare
from backend.images.thumbnails import (
    THUMBNAIL_BOX,
    Thumbnail,
    ThumbnailFormat,
    make_boxed_thumbnails,
    make_thumbnails,
)

__all__ = [
    "THUMBNAIL_BOX",
    "UPLOADS",
    "Optimized",
    "Prepared",
    "Thumbnail",
    "ThumbnailFormat",
    "blurhash_of",
    "contact_sheet",
    "dominant_color",
    "make_boxed_thumbnails",
    "make_thumbnails",
    "open_original",
    "optimize",
    "prepare",
    "resize_by",
]
