"""Files that nobody should send: some hundreds, made from a seed, each by its name.

`MARKERS` are planted in all metadata; none of them may be in anything that is made of these files.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from PIL import Image, ImageCms

from tests.backend.images.samples import chunk, encode, png, quarters

SECRET = b"s3cret-place-52.5N-13.4E"
SCRIPT = b"<script>alert('planted')</script>"
MARKERS = (b"s3cret", b"planted", b"<script", b"xmpmeta", b"Exif\0\0", b"http://ns.adobe.com")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SCRIPT + b"</x:xmpmeta>"

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF")
Files = Iterator[tuple[str, bytes]]


def corpus(seed: int = 5) -> dict[str, bytes]:
    """All of them."""
    chance = random.Random(seed)
    files: dict[str, bytes] = {}
    for family in (
        _sizes, _png_bombs, _jpeg_bombs, _webp_bombs, _gif_bombs, _avif_bombs, _broken_metadata,
        _other_kinds, _polyglots,
    ):  # fmt: skip
        files.update(family())
    for damage in (_truncated, _flipped, _spliced):
        files.update(damage(chance))
    return files


@cache
def good(fmt: str, *, with_metadata: bool = True) -> bytes:
    """A small picture that is in order, with all the metadata that its format can hold."""
    if not with_metadata:
        return encode(quarters(96, 64), fmt)
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010E] = (SECRET + SCRIPT).decode()
    exif.get_ifd(0x8825)[29] = SECRET.decode()  # of the GPS: its date
    more: dict[str, Any] = {"exif": exif, "icc_profile": srgb()}
    if fmt in ("JPEG", "GIF"):
        more["comment"] = SCRIPT
    if fmt in ("JPEG", "WEBP", "AVIF"):
        more["xmp"] = XMP
    if fmt == "GIF":
        del more["exif"], more["icc_profile"]
    data = encode(quarters(96, 64), fmt, **more)
    if fmt == "PNG":
        text = chunk(b"tEXt", b"Comment\0" + SCRIPT) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = data[:33] + text + data[33:]
    return data


def srgb() -> bytes:
    """Its profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# -- what claims more than it has, or has more than it claims -------------------------------------------


def _sizes() -> Files:
    for width, height in (
        (0, 0), (0, 9), (9, 0), (13_000, 13_000), (9400, 9400), (60_000, 60_000), (1, 40_000), (40_000, 1),
        (2**31 - 1, 1), (2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (30_000, 30_000),
    ):  # fmt: skip
        yield f"png-{width}x{height}", png(width, height, kind=6, data=zlib.compress(bytes(1000)))
    for depth, kind in (
        (0, 2),
        (3, 2),
        (16, 3),
        (32, 2),
        (255, 255),
        (8, 1),
        (8, 5),
        (8, 7),
        (1, 6),
        (64, 0),
    ):
        yield (
            f"png-depth-{depth}-kind-{kind}",
            png(8, 8, depth=depth, kind=kind, data=zlib.compress(bytes(500))),
        )
    for width, height in ((0, 0), (6000, 6000), (65_535, 65_535), (1, 65_535), (20_000, 20_000)):
        yield f"jpeg-{width}x{height}", _jpeg_of(width, height)
        yield f"gif-{width}x{height}", _gif_of(width, height)
        yield f"gif-frame-{width}x{height}", _gif_frame_of(width, height)
        yield f"avif-{width}x{height}", _avif_of(width, height)
    for side in (13_000, 16_384, 2**24):
        for lossless in (False, True):
            clear = Image.new("RGBA", (16, 16), (9, 9, 9, 9))
            data = encode(clear, "WEBP", icc_profile=srgb(), lossless=lossless)
            yield f"webp-canvas-{side}-{lossless}", _webp_canvas(data, side)
        yield f"webp-animated-canvas-{side}", _webp_canvas(_animation("WEBP", 3), side)
    yield "webp-vp8l-16384x16384", _webp_vp8l(16_384)
    yield "webp-vp8-16383x16383", _webp_vp8(16_383)
    for fmt in ("TIFF", "BMP"):
        yield f"{fmt}-huge", _huge_directory(fmt)


def _jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encode(Image.new("RGB", (64, 64), "gray"), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _gif_of(width: int, height: int) -> bytes:
    data = encode(Image.new("P", (16, 16)), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def _gif_frame_of(width: int, height: int) -> bytes:
    data = encode(Image.new("P", (16, 16)), "GIF")
    at = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 16, 16))
    return data[: at + 5] + struct.pack("<HH", width, height) + data[at + 9 :]


def _avif_of(width: int, height: int) -> bytes:
    data = encode(quarters(64, 64), "AVIF", speed=10)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _webp_canvas(data: bytes, side: int) -> bytes:
    at = data.index(b"VP8X") + 12
    return data[:at] + (side - 1).to_bytes(3, "little") * 2 + data[at + 6 :]


def _webp_vp8l(side: int) -> bytes:
    data = bytearray(encode(quarters(16, 16), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(data)


def _webp_vp8(side: int) -> bytes:
    data = bytearray(encode(quarters(16, 16), "WEBP"))
    data[26:30] = struct.pack("<HH", side, side)
    return bytes(data)


def _huge_directory(fmt: str) -> bytes:
    data = bytearray(encode(quarters(16, 16), fmt))
    if fmt == "BMP":
        data[18:26] = struct.pack("<ii", 40_000, 40_000)
    else:
        data = bytearray(
            bytes(data).replace(
                struct.pack("<HHIHH", 256, 3, 1, 16, 0), struct.pack("<HHII", 256, 4, 1, 60_000)
            )
        )
    return bytes(data)


def _animation(fmt: str, count: int) -> bytes:
    frames = [Image.new("RGBA", (16, 16), (index % 256, index // 256, 9, 255)) for index in range(count)]
    options = {"lossless": True} if fmt == "WEBP" else {}
    return encode(frames[0], fmt, save_all=True, append_images=frames[1:], duration=20, **options)


# -- bombs ----------------------------------------------------------------------------------------------


def _into_png(*chunks: bytes, data: bytes = b"") -> bytes:
    data = data or encode(quarters(96, 64))
    return data[:33] + b"".join(chunks) + data[33:]


def _png_bombs() -> Files:
    zeros = zlib.compress(bytes(60_000_000), 1)
    yield "png-ztxt-bomb", _into_png(chunk(b"zTXt", b"Comment\0\0" + zeros))
    yield "png-itxt-bomb", _into_png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros))
    yield "png-iccp-bomb", _into_png(chunk(b"iCCP", b"icc\0\0" + zeros))
    wide = zlib.compress(("x" * 1_040_000 + "\U0001f600").encode(), 1)
    texts = [chunk(b"iTXt", b"%d\0\1\0\0\0" % number + wide) for number in range(63)]
    yield "png-many-itxt", _into_png(*texts)
    zeros = zlib.compress(bytes(10**6), 1)
    yield "png-many-ztxt", _into_png(*[chunk(b"zTXt", b"k%d\0\0" % number + zeros) for number in range(200)])
    yield "png-many-empty-text", _into_png(chunk(b"tEXt", b"k\0") * 300_000)
    plain = encode(quarters(96, 64))
    at = plain.index(b"IDAT") - 4
    yield "png-many-empty-idat", plain[:at] + chunk(b"IDAT", b"") * 300_000 + plain[at:]
    yield "png-idat-goes-on", png(8, 8, data=zlib.compress(bytes(60_000_000), 1))
    yield "png-idat-too-short", png(4000, 4000, data=zlib.compress(bytes(10_000)))
    yield "png-idat-not-zlib", png(8, 8, data=b"\x78\x9c" + b"\xff" * 100)
    yield "png-no-idat", plain[:33] + chunk(b"IEND", b"")
    yield "png-two-headers", _into_png(plain[8:33].replace(b"IHDR", b"IHDR"))
    yield "png-chunk-of-4-gb", plain[:33] + b"\xff\xff\xff\xfftEXt"
    yield "png-no-palette", png(8, 8, kind=3, data=zlib.compress(bytes(72)))
    yield "png-frames", _animation("PNG", 1200)
    yield "png-claims-frames", _into_png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield (
        "png-frame-outside",
        _into_png(
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 2**31 - 1, 5, 1, 0, 9, 9)),
        ),
    )
    for key in (
        b"transparency",
        b"icc_profile",
        b"bbox",
        b"exif",
        b"gamma",
        b"duration",
        b"default_image",
        b"interlace",
    ):
        yield f"png-text-named-{key.decode()}", _into_png(chunk(b"tEXt", key + b"\0" + SCRIPT))


def _jpeg_bombs() -> Files:
    plain = encode(quarters(96, 64), "JPEG")
    for side, scans in ((3000, 300), (500, 20_000)):
        yield f"jpeg-{scans}-scans", _scans(side, scans)
    yield "jpeg-many-exif", plain[:2] + _segment(0xE1, b"Exif\0\0x") * 150_000 + plain[2:]
    yield "jpeg-many-comments", plain[:2] + _segment(0xFE, b"") * 500_000 + plain[2:]
    yield "jpeg-many-tables", plain[:2] + _segment(0xDB, b"\0" + b"\1" * 64) * 50_000 + plain[2:]
    yield "jpeg-comment-of-64-kb", plain[:2] + _segment(0xFE, SCRIPT * 1900) * 200 + plain[2:]
    yield (
        "jpeg-two-frames",
        plain.replace(b"\xff\xc0", _segment(0xC0, b"\x08" + b"\xff" * 4 + b"\1\1\x11\0") + b"\xff\xc0", 1),
    )
    yield "jpeg-hierarchical", plain.replace(b"\xff\xc0", b"\xff\xde", 1)
    yield "jpeg-arithmetic", plain.replace(b"\xff\xc0", b"\xff\xc9", 1)
    yield "jpeg-lossless", plain.replace(b"\xff\xc0", b"\xff\xc3", 1)
    yield "jpeg-12-bits", plain.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1)
    yield "jpeg-two-starts", plain[:2] + plain
    yield "jpeg-no-end", plain[:-2]
    yield (
        "jpeg-tables-of-zero",
        plain[: plain.index(b"\xff\xdb") + 5] + bytes(64) + plain[plain.index(b"\xff\xdb") + 69 :],
    )
    at = plain.index(b"\xff\xda")
    yield "jpeg-ends-at-its-scan", plain[: at + 14] + b"\xff\xd9"
    several = encode(quarters(96, 64), "MPO", save_all=True, append_images=[quarters(8, 8)] * 1000)
    yield "jpeg-mpo-of-frames", several
    yield "jpeg-nested-mpo", plain[:2] + _segment(0xE2, b"MPF\0" + several[:60_000]) + several[2:]
    yield "jpeg-mpo-claims-frames", plain[:2] + _segment(
        0xE2, b"MPF\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0xB001, 4, 1, 2**32 - 1)
        + struct.pack("<HHII", 0xB002, 7, 2**32 - 16, 8),
    ) + plain[2:]  # fmt: skip


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _scans(side: int, count: int) -> bytes:
    """A progressive one whose last scan comes again and again, without saying anything."""
    data = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    at = data.rindex(b"\xff\xda")
    scan = data[at : at + 2 + struct.unpack_from(">H", data, at + 2)[0]]
    return data[:-2] + scan * count + bytes(side * side // 600) + b"\xff\xd9"


def _webp_bombs() -> Files:
    yield "webp-frames", _animation("WEBP", 1200)
    data = encode(quarters(96, 64), "WEBP", exif=b"Exif\0\0" + SECRET)
    for name in (b"EXIF", b"XMP ", b"ICCP", b"JUNK"):
        yield (
            f"webp-many-{name.decode().strip()}",
            _riff(data[12:] + (name + struct.pack("<I", 2) + b"xx") * 300_000),
        )
    yield "webp-chunk-of-4-gb", _riff(data[12:] + b"EXIF\xff\xff\xff\xff")
    yield "webp-riff-of-4-gb", data[:4] + b"\xff\xff\xff\xff" + data[8:]
    yield "webp-riff-of-nothing", data[:4] + b"\0\0\0\0" + data[8:]
    yield "webp-without-picture", _riff(data[12:30])
    moving = _animation("WEBP", 2)
    at = moving.index(b"ANMF") + 8
    yield "webp-frame-outside", moving[:at] + b"\xff" * 6 + moving[at + 6 :]
    yield "webp-frame-of-2-24", moving[: at + 6] + b"\xff" * 6 + moving[at + 12 :]


def _riff(content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


def _gif_bombs() -> Files:
    data = encode(quarters(96, 64), "GIF")
    at = 13 + (3 << (data[10] & 7) + 1)
    yield "gif-frames", data[:at] + data[at:-1] * 5000 + b";"
    yield "gif-comments", data[:at] + b"!\xfe" + b"\2ab" * 900_000 + b"\0" + data[at:]
    yield "gif-extensions", data[:at] + b"!\xfe\0" * 300_000 + data[at:]
    yield "gif-comment", data[:at] + b"!\xfe" + bytes([len(SCRIPT)]) + SCRIPT + b"\0" + data[at:]
    yield (
        "gif-xmp",
        data[:at] + b"!\xff\x0bXMP DataXMP" + XMP[:200] + bytes(range(255, -1, -1)) + b"\0" + data[at:],
    )
    yield "gif-tiny-blocks", data[:-2] + b"\1\0" * 500_000 + b"\0;"
    yield "gif-no-picture", data[:at] + b";"
    yield "gif-code-size-255", data.replace(data[-200:], b"\xff" * 200)


def _avif_bombs() -> Files:
    plain = encode(quarters(96, 64), "AVIF", speed=10)
    large = encode(Image.new("RGB", (3500, 3500), "gray"), "AVIF", speed=10, quality=10)
    at = large.index(b"ispe") + 8
    yield "avif-larger-than-it-claims", large[:at] + struct.pack(">II", 64, 64) + large[at + 8 :]
    yield "avif-frames", _animation("AVIF", 60)
    for name in (b"meta", b"iloc", b"iinf", b"iprp", b"ipco", b"ispe", b"pitm", b"av1C", b"mdat"):
        place = plain.index(name) - 4
        for length in (0, 1, 7, 2**31):
            yield (
                f"avif-{name.decode()}-of-{length}",
                plain[:place] + struct.pack(">I", length) + plain[place + 4 :],
            )
    yield "avif-many-boxes", plain[:32] + (struct.pack(">I", 8) + b"free") * 200_000 + plain[32:]
    yield "avif-two-metas", plain + plain[plain.index(b"meta") - 4 :]


# -- metadata that bites --------------------------------------------------------------------------------


def _broken_metadata() -> Files:
    tiff = b"Exif\0\0II*\0"
    exifs = {
        "loop": tiff
        + struct.pack("<IH", 8, 1)
        + struct.pack("<HHII", 0x8769, 4, 1, 8)
        + struct.pack("<I", 8),
        "count": tiff + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 3, 2**32 - 1, 8),
        "entries": tiff + struct.pack("<IH", 8, 65_535) + struct.pack("<HHII", 0x010E, 2, 60_000, 0) * 4000,
        "far": tiff + struct.pack("<I", 2**32 - 1),
        "text": tiff + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 2, 4, 0x41414141),
        "half": tiff + b"\x08",
        "none": b"Exif\0\0",
        "rational": tiff + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 5, 1, 26) + bytes(12),
    }
    profile = srgb()
    profiles = {
        "size": struct.pack(">I", 2**32 - 1) + profile[4:],
        "tags": profile[:128] + struct.pack(">I", 2**32 - 1) + profile[132:],
        "loop": profile[:128] + struct.pack(">I4sII", 60_000, b"rTRC", 128, 60_000) + profile[144:],
        "curve": profile.replace(b"para\0\0\0\0", b"curv\0\0\0\0"),
        "cut": profile[:140],
        "space": profile[:16] + b"CMYK" + profile[20:],
        "zeros": bytes(3000),
        "text": SCRIPT * 40,
    }
    for fmt in ("JPEG", "PNG", "WEBP", "AVIF"):
        for name, exif in exifs.items():
            if fmt != "AVIF":
                yield f"{fmt}-exif-{name}", encode(quarters(96, 64), fmt, exif=exif)
        for name, icc in profiles.items():
            yield f"{fmt}-icc-{name}", encode(quarters(96, 64), fmt, icc_profile=icc)
    plain = encode(quarters(96, 64), "JPEG")
    pieces = [
        _segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 255]) + profile[:100]) for number in range(1, 255)
    ]
    yield "jpeg-icc-missing-piece", plain[:2] + b"".join(pieces) + plain[2:]
    yield "jpeg-icc-piece-0", plain[:2] + _segment(0xE2, b"ICC_PROFILE\0\0\0" + profile[:100]) + plain[2:]
    yield "cmyk-without-profile", encode(quarters(96, 64).convert("CMYK"), "JPEG")
    yield "cmyk-with-rgb-profile", encode(quarters(96, 64).convert("CMYK"), "JPEG", icc_profile=profile)
    for fmt in FORMATS:
        yield f"{fmt}-all-metadata", good(fmt)
        yield f"{fmt}-trailing", good(fmt) + SECRET + SCRIPT * 50
    yield "jpeg-hidden-between", plain.replace(b"\xff\xda", SCRIPT.replace(b"\xff", b"") + b"\xff\xda", 1)


# -- what is no picture, or another one -----------------------------------------------------------------


_HEADS = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 16, 16, 8, 3) + bytes(2000),
    "tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 16, 16, 24, 0) + bytes(768),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'>" + SCRIPT + b"</svg>",
    "html": b"<!doctype html><html>" + SCRIPT + b"</html>",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
    "zip": b"PK\3\4" + bytes(200) + b"PK\5\6" + bytes(18),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(200),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "ico": b"\0\0\1\0\1\0" + bytes(200),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
    "elf": b"\x7fELF" + bytes(200),
}


def _other_kinds() -> Files:
    yield "empty", b""
    for name, head in _HEADS.items():
        yield f"a-{name}", head
    for fmt in ("BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "JPEG2000", "DDS"):
        yield f"another-{fmt}", encode(quarters(32, 32), fmt)
    magic = {
        "png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF\x10\0\0\0WEBP", "gif": b"GIF89a",
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    }  # fmt: skip
    for name, first in magic.items():
        yield f"only-magic-{name}", first
        for other, head in _HEADS.items():
            yield f"magic-of-{name}-then-{other}", first + head


def _polyglots() -> Files:
    for fmt in FORMATS:
        for name in ("html", "pdf", "zip", "svg"):
            yield f"{fmt}-and-{name}", good(fmt, with_metadata=False) + _HEADS[name] + SECRET
    gif = good("GIF", with_metadata=False)
    yield "gif-and-javascript", gif[:6] + b"/*" + gif[8:] + b"*/=1;alert('planted')"


# -- damage ---------------------------------------------------------------------------------------------


def _truncated(chance: random.Random) -> Files:
    for fmt in FORMATS:
        data = good(fmt)
        for _ in range(12):
            kept = chance.randrange(1, len(data))
            yield f"{fmt}-cut-at-{kept}", data[:kept]


def _flipped(chance: random.Random) -> Files:
    for fmt in FORMATS:
        for number in range(24):
            data = bytearray(good(fmt))
            for _ in range(chance.randint(1, 16)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            yield f"{fmt}-flipped-{number}", bytes(data)


def _spliced(chance: random.Random) -> Files:
    """The beginning of one, the end of another."""
    for number in range(25):
        one, other = good(chance.choice(FORMATS)), good(chance.choice(FORMATS))
        yield f"spliced-{number}", one[: chance.randrange(len(one))] + other[chance.randrange(len(other)) :]
