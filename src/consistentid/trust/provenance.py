"""How a file says what it is in its metadata: XMP with the IPTC digital source type, and the record of how it was made.

Metadata is a label, not a seal: it is lost when a picture is re-encoded or photographed, and anybody can write it. The
seal is the signature of `trust.credentials`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr, unescape

import numpy as np
from PIL import Image, PngImagePlugin

from consistentid.errors import InvalidSettings
from consistentid.images import pixels_sha256
from consistentid.trust.policy import Consent

# https://cv.iptc.org/newscodes/digitalsourcetype/
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{_SOURCE_TYPES}trainedAlgorithmicMedia"
EDITED = f"{_SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
XMP_KEYWORD = "XML:com.adobe.xmp"  # keyword of the PNG iTXt chunk, XMP specification part 3
TEXT_KEY = "consistentid"  # keyword of the PNG text chunk that holds the record as JSON
_USER_COMMENT, _EXIF, _MAKER = 0x9286, 0x8769, 0x0131  # EXIF tags: the comment, the table it is in, the software
_MOST_EXIF = 65_000  # bytes; a JPEG segment holds 65,533
_UNICODE = b"UNICODE\0"  # EXIF's mark for a comment in UTF-16

_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:consistentid="urn:consistentid:label:1"
    Iptc4xmpExt:DigitalSourceType={source}
    xmp:CreatorTool={tool}
    consistentid:Consent={consent}
    consistentid:Pixels={pixels}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that pictures are saved as: Pillow's name, its options, and the media type."""

    name: Literal["PNG", "JPEG", "WEBP"]
    media_type: str
    options: Mapping[str, Any]


_JPEG = FileKind("JPEG", "image/jpeg", {"quality": 95, "subsampling": 0})
KINDS = {
    ".png": FileKind("PNG", "image/png", {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": FileKind("WEBP", "image/webp", {"lossless": True, "exact": True}),
}


@dataclass(frozen=True)
class Label:
    """What the metadata say of a picture.

    Attributes:
        tool: name and version of the program that made it.
        source: IPTC digital source type, `GENERATED` or `EDITED`.
        consent: whether it was stated that the people in the photos agreed.
        pixels: SHA-256 of the saved picture, as `images.pixels_sha256` takes it.
    """

    tool: str
    source: str = GENERATED
    consent: Consent = "not stated"
    pixels: str = ""

    def xmp(self) -> str:
        """The label as an XMP packet."""
        return _TEMPLATE.format(**{name: quoteattr(value) for name, value in vars(self).items()})

    @classmethod
    def of_xmp(cls, packet: str) -> "Label | None":
        """The label in a packet, None when its picture is not said to be of a model."""
        source = _property(packet, "Iptc4xmpExt:DigitalSourceType")
        if source not in (GENERATED, EDITED):
            return None
        consent: Consent = "stated" if _property(packet, "consistentid:Consent") == "stated" else "not stated"
        return cls(_property(packet, "xmp:CreatorTool"), source, consent, _property(packet, "consistentid:Pixels"))


def kind_of_file(path: Path) -> FileKind:
    """The kind that a file name asks for.

    Raises:
        InvalidSettings: it is none that carries a label.
    """
    if path.suffix.lower() not in KINDS:
        raise InvalidSettings(f"{path.name}: portraits are saved as .png, .jpg or .webp, which carry their record")
    return KINDS[path.suffix.lower()]


def encoded(picture: Image.Image, kind: FileKind, *, label: Label, record: str | None) -> bytes:
    """A file with its label; the hash in it is of the pixels as they come out of the file again.

    Args:
        picture: RGB.
        kind: of the file.
        label: without the hash.
        record: how the picture was made, as JSON.

    Raises:
        InvalidSettings: the record is too long for a JPEG.
    """
    if kind.name == "JPEG" and record is not None and len(record.encode("utf-16-be")) > _MOST_EXIF:
        raise InvalidSettings(
            f"a record of {len(record):,} characters does not fit into a JPEG; save the portrait as .png"
        )
    pixels = picture
    if kind.name == "JPEG":
        pixels = Image.open(_saved(picture, kind))
    complete = replace(label, pixels=pixels_sha256(np.asarray(pixels.convert("RGB"))))
    return _saved(picture, kind, **_metadata(kind, complete, record)).getvalue()


def read_label(image: Image.Image) -> Label | None:
    """The label of an opened picture of any kind."""
    packet = image.info.get("xmp") or image.info.get(XMP_KEYWORD) or b""
    return Label.of_xmp(packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet)


def read_record(image: Image.Image) -> str | None:
    """The record of an opened picture, None when it carries none; of a PNG, the picture must be loaded."""
    if image.format == "PNG":
        text = getattr(image, "text", {}).get(TEXT_KEY)
        return None if text is None else str(text)
    comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return None
    text = comment.removeprefix(_UNICODE).decode("utf-16-be", "replace")
    return text if text.startswith("{") else None


def _metadata(kind: FileKind, label: Label, record: str | None) -> dict[str, Any]:
    if kind.name == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt(XMP_KEYWORD, label.xmp())
        if record is not None:
            info.add_itxt(TEXT_KEY, record)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif[_MAKER] = label.tool
    if record is not None:
        exif.get_ifd(_EXIF)[_USER_COMMENT] = _UNICODE + record.encode("utf-16-be")
    return {"exif": exif, "xmp": label.xmp().encode()}


def _saved(picture: Image.Image, kind: FileKind, **metadata: Any) -> BytesIO:
    content = BytesIO()
    picture.save(content, format=kind.name, **kind.options, **metadata)
    return content


def _property(packet: str, name: str) -> str:
    found = re.search(rf"""\b{name}\s*=\s*(?:"([^"]*)"|'([^']*)')|<{name}>([^<]*)</{name}>""", packet)
    return unescape(next(filter(None, found.groups()), ""), {"&quot;": '"', "&apos;": "'"}) if found else ""
