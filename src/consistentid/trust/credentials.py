"""Content Credentials (C2PA) in and out of picture files: the signed statement of what made a file, and from what.

The statement has one of two histories: a new picture was *created* by a trained model, or an existing one was *opened*
and *edited* by it; the existing one is then an ingredient, with its own credentials if it has any. Nothing is fetched,
neither for signing nor for reading.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from consistentid.errors import ConsistentIDError, InvalidSettings, first_line
from consistentid.trust.certificates import Signer
from consistentid.trust.provenance import EDITED, GENERATED

ASSERTION = "org.consistentid.generation"  # label of the settings in the manifest
State = Literal["trusted", "valid", "invalid", "unreadable"]
_HARMLESS = {"signingCredential.untrusted"}  # said by the state already
_OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}


class SigningFailed(ConsistentIDError):
    """A file could not be signed; the message says why."""


@dataclass(frozen=True)
class Statement:
    """What is signed about a file.

    Attributes:
        version: of this package.
        generation: model and settings, any JSON.
        watermarked: whether the picture carries the invisible watermark.
        edited: file content and media type of the picture that was changed; None when the picture is new.
    """

    version: str
    generation: Mapping[str, Any] = field(default_factory=dict)
    watermarked: bool = False
    edited: tuple[bytes, str] | None = None

    def manifest(self, media_type: str) -> dict[str, Any]:
        """The statement as a C2PA manifest definition."""
        made = {"digitalSourceType": GENERATED} if self.edited is None else {"digitalSourceType": EDITED}
        actions: list[dict[str, Any]] = [{"action": "c2pa.created", **made}]
        if self.edited is not None:
            opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["edited"]}}
            actions = [opened, {"action": "c2pa.edited", **made}]
        if self.watermarked:
            actions.append({"action": "c2pa.watermarked.unbound"})
        assertions = [{"label": "c2pa.actions.v2", "data": {"actions": actions}}]
        if self.generation:
            assertions.append({"label": ASSERTION, "data": dict(self.generation)})
        return {
            "claim_generator_info": [{"name": "consistentid", "version": self.version}],
            "format": media_type,
            "assertions": assertions,
        }


@dataclass(frozen=True)
class Credentials:
    """What a file's manifest says, and whether it holds.

    Attributes:
        state: trusted: as it was signed, by a certificate under a trusted root; valid: as it was signed; invalid: the
            file or the manifest is not what was signed; unreadable: there is one that cannot be read.
        signer: whom the certificate names.
        tool: name and version of the program that made the claim.
        sources: IPTC digital source types of the actions.
        problems: what does not hold, in C2PA's words.
        generation: what this package signed about model and settings; None in other programs' manifests.
    """

    state: State
    signer: str = ""
    tool: str = ""
    sources: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    generation: Mapping[str, Any] | None = None


def sign(content: bytes, media_type: str, statement: Statement, signer: Signer) -> bytes:
    """A file with a signed manifest.

    Args:
        content: of the file.
        media_type: of the file.
        statement: what is said of it.
        signer: who says so.

    Raises:
        SigningFailed: the library is not installed, or refuses file or certificate.
    """
    signed = BytesIO()
    try:
        import c2pa

        certificate = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None)
        with (
            c2pa.Context.from_dict(_settings(verify_trust=False)) as context,
            c2pa.Signer.from_info(certificate) as owner,
            c2pa.Builder(statement.manifest(media_type), context=context) as builder,
        ):
            if statement.edited is not None:
                original, kind = statement.edited
                ingredient = {"relationship": "parentOf", "label": "edited", "instance_id": "edited"}
                builder.add_ingredient(json.dumps(ingredient), kind, BytesIO(original))
            builder.sign(owner, media_type, BytesIO(content), signed)
    except ImportError:
        raise SigningFailed("c2pa-python is not installed (pip install c2pa-python)") from None
    except Exception as error:  # the binding raises several kinds, all of them about this one file
        raise SigningFailed(first_line(error)) from error
    return signed.getvalue()


def check_signer(signer: Signer) -> None:
    """Sign a pixel, so that a certificate that C2PA does not take is refused before anything is made.

    Raises:
        InvalidSettings: it cannot sign.
    """
    from PIL import Image

    pixel = BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    try:
        signed = sign(pixel.getvalue(), "image/png", Statement(version="0"), signer)
    except SigningFailed as error:
        raise InvalidSettings(f"the certificate of {signer.name} cannot sign pictures ({error})") from None
    found = read_credentials(signed, "image/png")
    if found is None or found.state == "invalid":
        problems = ", ".join(found.problems) if found else "nothing was signed"
        raise InvalidSettings(f"what the certificate of {signer.name} signs does not hold ({problems})")


def read_credentials(content: bytes, media_type: str, *, trusted: str = "") -> Credentials | None:
    """The credentials of a file, checked; None when it has none.

    Args:
        content: of the file.
        media_type: of the file.
        trusted: PEM of further roots that are trusted; C2PA's own list is not part of the library.

    Raises:
        SigningFailed: the library is not installed.
    """
    try:
        import c2pa
    except ImportError:
        raise SigningFailed("c2pa-python is not installed (pip install c2pa-python)") from None
    try:
        with (
            c2pa.Context.from_dict(_settings(verify_trust=True, trusted=trusted)) as context,
            c2pa.Reader(media_type, BytesIO(content), context=context) as reader,
        ):
            return _credentials(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except Exception as error:  # noqa: BLE001  hostile bytes; whatever they do is a finding, not a fault
        return Credentials("unreadable", problems=(first_line(error),))


def _settings(*, verify_trust: bool, trusted: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {
        "verify": {"verify_trust": verify_trust, "verify_after_sign": False, **_OFFLINE},
        "builder": {"thumbnail": {"enabled": False}},  # a small copy of a photo of a person, for nothing
    }
    if trusted:
        settings["trust"] = {"user_anchors": trusted}
    return settings


def _credentials(found: Mapping[str, Any]) -> Credentials:
    manifest: Mapping[str, Any] = found["manifests"].get(found.get("active_manifest"), {})
    assertions = {one["label"]: one["data"] for one in manifest.get("assertions", ())}
    actions = [
        action
        for label, data in assertions.items()
        if label.startswith("c2pa.actions")
        for action in data.get("actions", ())
    ]
    tool: Mapping[str, str] = next(iter(manifest.get("claim_generator_info") or ()), {})
    signature = manifest.get("signature_info") or {}
    state: State = {"trusted": "trusted", "valid": "valid"}.get(str(found.get("validation_state")).lower(), "invalid")  # type: ignore[assignment]
    codes = (status.get("code", "") for status in found.get("validation_status", ()))
    return Credentials(
        state,
        signer=signature.get("common_name") or signature.get("issuer") or "",
        tool=" ".join(filter(None, (tool.get("name"), tool.get("version")))),
        sources=tuple(dict.fromkeys(one["digitalSourceType"] for one in actions if "digitalSourceType" in one)),
        problems=tuple(dict.fromkeys(code for code in codes if code not in _HARMLESS)),
        generation=assertions.get(ASSERTION),
    )
