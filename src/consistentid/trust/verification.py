"""What a picture file is, by whom it says so, and whether it is still what was saved."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from consistentid.errors import UnreadableImage
from consistentid.images import opened, pixels_sha256
from consistentid.trust.credentials import Credentials, read_credentials
from consistentid.trust.provenance import EDITED, GENERATED, KINDS, Label, read_label, read_record
from consistentid.trust.watermark import FOUND, detected

Verdict = Literal["intact", "changed", "unknown"]
_TOOL = "consistentid"
_MOST_BYTES = 500_000_000
_MEDIA_TYPES = {kind.name: kind.media_type for kind in KINDS.values()}
_RECORD = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class FileReport:
    """What was found in a file.

    Attributes:
        kind: PNG, JPEG or WEBP.
        label: of the metadata, None when they do not call the picture generated.
        credentials: the signed manifest, None when there is none.
        pixels: whether the pixels are those that the label was written for; None when it does not say.
        watermark: agreement with the invisible mark, in standard deviations.
        record: how the picture was made, None when the file does not say.
    """

    kind: str
    label: Label | None
    credentials: Credentials | None
    pixels: bool | None
    watermark: float
    record: Mapping[str, Any] | None

    @property
    def is_marked(self) -> bool:
        """Whether the invisible mark was found."""
        return self.watermark >= FOUND

    @property
    def made_by(self) -> str | None:
        """Name and version of the program that the file says made it, `consistentid` where only the mark does."""
        signed = self.credentials.tool if self.credentials is not None else ""
        labelled = self.label.tool if self.label is not None else ""
        return signed or labelled or (_TOOL if self.is_marked else None)

    @property
    def is_ours(self) -> bool:
        """Whether the file says that this package made it."""
        return (self.made_by or "").split(" ")[0] == _TOOL

    @property
    def source(self) -> str | None:
        """IPTC digital source type, the signed one first."""
        signed = self.credentials.sources if self.credentials is not None else ()
        return next(iter(signed), self.label.source if self.label is not None else None)

    @property
    def is_generated(self) -> bool:
        """Whether the file says that a trained model made or changed the picture."""
        return self.source in (GENERATED, EDITED) or self.is_marked

    @property
    def changes(self) -> tuple[str, ...]:
        """What speaks against the file being as it was saved."""
        return tuple(self._changes())

    @property
    def verdict(self) -> Verdict:
        """Intact: what can be checked holds. Changed: something does not. Unknown: nothing can be checked."""
        if self.changes:
            return "changed"
        return "intact" if self.credentials is not None or self.pixels else "unknown"

    def _changes(self) -> Iterator[str]:
        if self.credentials is not None and self.credentials.state == "invalid":
            yield f"the file is not what was signed ({', '.join(self.credentials.problems) or 'unknown reason'})"
        if self.credentials is not None and self.credentials.state == "unreadable":
            yield f"its credentials cannot be read ({', '.join(self.credentials.problems)})"
        if self.pixels is False:
            yield "its pixels are not those that were saved"
        if self.is_marked and self.label is None and self.credentials is None:
            yield "it carries the watermark, but label, record and signature were removed"


def verify_file(path: str | Path, *, trusted: str = "") -> FileReport:
    """Look at a PNG, JPEG or WebP file of any origin; nothing is fetched.

    Args:
        path: of the file.
        trusted: PEM of certificates whose signatures are trusted, with those below them.

    Raises:
        UnreadableImage: the file is missing, broken, too large, or of another kind.
    """
    path = Path(path).expanduser()
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise UnreadableImage(f"{path.name} is larger than {_MOST_BYTES // 1_000_000} MB, which no picture here is")
    with opened(path) as image:
        kind = image.format or "unknown"
        if kind not in _MEDIA_TYPES:
            raise UnreadableImage(f"{path.name} is a {kind} file; PNG, JPEG and WebP can be verified")
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UnreadableImage(f"{path.name} is truncated or broken ({error})") from error
        picture = image.convert("RGB")
        label, record = read_label(image), _parsed(read_record(image))
    credentials = read_credentials(path.read_bytes(), _MEDIA_TYPES[kind], trusted=trusted)
    pixels = pixels_sha256(np.asarray(picture)) == label.pixels if label is not None and label.pixels else None
    return FileReport(kind, label, credentials, pixels, detected(picture), record)


def _parsed(record: str | None) -> dict[str, Any] | None:
    try:
        return None if record is None else _RECORD.validate_json(record)
    except ValidationError:  # anybody can write a chunk of this name
        return None
