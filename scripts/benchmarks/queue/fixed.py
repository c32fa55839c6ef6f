"""What is the same in all ways: the size of a job and of its files. Nothing is drawn, encoded or decoded."""

import random
from typing import Final

IMAGES: Final = 4  # of a job
THUMBNAIL_SIZES: Final = (512, 256, 128)

_noise = random.Random(1)
ORIGINAL: Final = _noise.randbytes(768 * 1024)  # 1 MiB in base64; a PNG of 1024x1024 pixels easily is larger
THUMBNAIL: Final = _noise.randbytes(20_311)
