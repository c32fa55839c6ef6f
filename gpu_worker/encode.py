"""Turns a picture into the bytes of a file that says how it was made. Same picture, same bytes."""

import io
import json
from collections.abc import Mapping
from xml.sax.saxutils import escape

from PIL import Image, PngImagePlugin

from contract.messages import GenerateImage, JsonScalar, OutputFormat
from gpu_worker.engines.base import Picture

QUALITY = 90  # WebP and JPEG
WEBP_METHOD = 4
TEXT_BYTES = 12_000  # per prompt: Exif (in UTF-16) and XMP (escaped) must each fit into 64 KiB of a JPEG

SOFTWARE, IMAGE_DESCRIPTION = 0x0131, 0x010E  # Exif tags
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
    "<xmp:CreatorTool>{software}</xmp:CreatorTool>"
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>'
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def encode(picture: Picture, message: GenerateImage, software: str) -> bytes:
    """The picture in the format that the message asks for, with prompt, model, seed and the rest inside.

    PNG: iTXt (prompt, negative_prompt, model, seed, size, made_with, parameters, Software).
    WebP and JPEG: Exif (ImageDescription, UserComment, Software) and XMP (dc:description).
    `parameters` and UserComment hold the text that users of AUTOMATIC1111's web UI know.
    """
    file = io.BytesIO()
    image = _in_a_mode_for(message.output_format, picture.image)
    if message.output_format == "png":
        image.save(file, "PNG", pnginfo=_png_texts(picture, message, software))
        return file.getvalue()
    exif, xmp = _exif(picture, message, software), _xmp(message, software)
    if message.output_format == "webp":
        image.save(file, "WEBP", quality=QUALITY, method=WEBP_METHOD, exif=exif, xmp=xmp)
    else:
        image.save(file, "JPEG", quality=QUALITY, exif=exif, xmp=xmp)
    return file.getvalue()


def parameters(message: GenerateImage, made_with: Mapping[str, JsonScalar], software: str) -> str:
    """The prompts and the facts, as AUTOMATIC1111 writes them and many tools read them."""
    facts: dict[str, JsonScalar] = {
        "Steps": message.steps if message.steps is not None else made_with.get("steps"),
        "CFG scale": message.guidance if message.guidance is not None else made_with.get("guidance"),
        "Seed": message.seed,
        "Size": f"{message.width}x{message.height}",
        "Model": message.model,
        **{_titled(key): value for key, value in sorted(made_with.items())},
        "Version": software,
    }
    lines = [message.prompt]
    if message.negative_prompt:
        lines.append(f"Negative prompt: {message.negative_prompt}")
    lines.append(", ".join(f"{key}: {value}" for key, value in facts.items() if value is not None))
    return "\n".join(map(_printable, lines))


def _titled(key: str) -> str:
    known = {"guidance": "CFG scale", "steps": "Steps"}
    return known.get(key, key.replace("_", " ").capitalize())


def _png_texts(picture: Picture, message: GenerateImage, software: str) -> PngImagePlugin.PngInfo:
    texts = {
        "prompt": message.prompt,
        "negative_prompt": message.negative_prompt or "",
        "model": message.model,
        "seed": str(message.seed),
        "size": f"{message.width}x{message.height}",
        "made_with": json.dumps(dict(picture.made_with), sort_keys=True, ensure_ascii=False),
        "parameters": parameters(message, picture.made_with, software),
        "Software": software,
    }
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        if text:
            info.add_itxt(key, _printable(text))
    return info


def _exif(picture: Picture, message: GenerateImage, software: str) -> bytes:
    bounded = message.model_copy(
        update={
            "prompt": _bounded(message.prompt),
            "negative_prompt": _bounded(message.negative_prompt or ""),
        }
    )
    comment = parameters(bounded, picture.made_with, software)
    exif = Image.Exif()
    exif.endian = ">"  # UNICODE comments are read in the byte order of the file, or in this one
    exif[IMAGE_DESCRIPTION] = bounded.prompt.encode()  # UTF-8 in an ASCII field, as everybody does
    exif[SOFTWARE] = software
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\x00" + comment.encode("utf-16-be")
    return exif.tobytes()


def _xmp(message: GenerateImage, software: str) -> bytes:
    return XMP.format(software=escape(software), description=escape(_bounded(message.prompt))).encode()


def _in_a_mode_for(output_format: OutputFormat, image: Image.Image) -> Image.Image:
    """JPEG knows no transparency: it is laid on white."""
    if output_format != "jpeg" or image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _printable(text: str) -> str:
    """Without what XML and PNG forbid: control characters (but for line breaks) and halves of characters."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(c for c in whole if c in "\n\t" or (ord(c) >= 32 and ord(c) not in (127, 0xFFFE, 0xFFFF)))


def _bounded(text: str) -> str:
    """As much of the text as fits."""
    return _printable(text).encode()[:TEXT_BYTES].decode("utf-8", "ignore")
