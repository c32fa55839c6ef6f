"""Whatever mode, depth or profile a picture has: sRGB, as browsers take it."""

from io import BytesIO

from PIL import Image, ImageCms

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_COLOUR_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile -> Pillow's mode


def to_srgb(image: Image.Image, profile: bytes | None, gamma: float | None) -> Image.Image:
    """RGB, or RGBA where at least one pixel is not opaque. What was given isn't kept."""
    image, alpha = _split_alpha(_to_8_bits(image))
    if profile:
        image = _apply_profile(image, profile)
    elif gamma and image.mode in ("L", "RGB"):
        image = image.point(_curve(gamma) * len(image.getbands()))
    image = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        image.putalpha(alpha)
    return image


def _curve(gamma: float) -> list[int]:
    """From levels that are light to the power of `gamma` to those of sRGB."""
    light = [(level / 255) ** (1 / gamma) for level in range(256)]
    srgb = [12.92 * one if one <= 0.0031308 else 1.055 * one ** (1 / 2.4) - 0.055 for one in light]
    return [round(255 * one) for one in srgb]


def _to_8_bits(file: Image.Image) -> Image.Image:
    """Grey of 16 bits keeps its high byte; Pillow's own conversion makes all of it white."""
    if not file.mode.startswith("I"):
        return file
    deep = file.convert("I")
    grey = deep.point([value >> 8 for value in range(65536)], "L")
    clear = file.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(deep.point([0 if value == clear else 255 for value in range(65536)], "L"))
    return grey


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour and opacity apart: profiles speak of colour only."""
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
        return image, alpha
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """To sRGB; a profile that is broken, or for another kind of picture, is as good as none."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _COLOUR_SPACES.get(source.profile.xcolor_space)
        if mode == "RGB" and image.mode == "L":  # a grey that is one of these colours, and stays grey
            return _apply_profile(image.convert("RGB"), profile).convert("L")
        if mode != image.mode:
            return image
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image
