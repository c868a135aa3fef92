"""From a picture to the file that says what it is: watermark, label, record, signature."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from consistentid.trust.audit import AuditLog
from consistentid.trust.certificates import Signer, throw_away_signer
from consistentid.trust.credentials import SigningFailed, Statement, sign
from consistentid.trust.policy import Consent
from consistentid.trust.provenance import EDITED, GENERATED, KINDS, FileKind, Label, encoded
from consistentid.trust.watermark import marked

logger = logging.getLogger(__name__)

_MEDIA_TYPES = {kind.name: kind.media_type for kind in KINDS.values()}


@dataclass(frozen=True)
class About:
    """What a file says of its picture.

    Attributes:
        version: of this package.
        consent: whether it was stated that the people in the photos agreed.
        record: how the picture was made, as JSON; None for a picture that shows several.
        generation: model and settings, for the signed statement.
        edited: the picture that was changed, as file content or in memory; None when the picture is new.
    """

    version: str
    consent: Consent = "not stated"
    record: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    edited: bytes | Image.Image | None = None


@dataclass(frozen=True)
class Marking:
    """How saved pictures are marked, and where it is noted.

    Attributes:
        sign: add a signed C2PA manifest.
        signer: who signs; None for a certificate that lasts as long as the process.
        watermark: add the invisible mark to the pixels.
        private: keep prompt, caption and photos out of the file.
        audit: where it is noted, too.
    """

    sign: bool = True
    signer: Signer | None = None
    watermark: bool = False
    private: bool = False
    audit: AuditLog | None = None

    def file(self, picture: Image.Image, kind: FileKind, about: About) -> bytes:
        """The content of a file that holds a picture and says what it is.

        A file that cannot be signed is made without a signature, which the log says in one sentence.

        Args:
            picture: RGB.
            kind: of the file.
            about: what it says.
        """
        source = GENERATED if about.edited is None else EDITED
        label = Label(f"consistentid {about.version}".strip(), source, about.consent)
        content = encoded(marked(picture) if self.watermark else picture, kind, label=label, record=about.record)
        if not self.sign:
            return content
        edited = None if about.edited is None else _file_of(about.edited)
        statement = Statement(about.version, about.generation, self.watermark, edited)
        try:
            return sign(content, kind.media_type, statement, self.signer or throw_away_signer())
        except (SigningFailed, ImportError) as error:
            logger.warning("a picture is saved without a signature: %s", error)
            return content


def _file_of(edited: bytes | Image.Image) -> tuple[bytes, str]:
    """Content and media type of the picture that was changed; as PNG when its own kind carries no credentials."""
    if isinstance(edited, bytes):
        with Image.open(BytesIO(edited)) as opened:
            if opened.format in _MEDIA_TYPES:
                return edited, _MEDIA_TYPES[opened.format]
            edited = opened.convert("RGB")
    content = BytesIO()
    edited.convert("RGB").save(content, "PNG", compress_level=1)
    return content.getvalue(), "image/png"
