"""`consistentid verify`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from consistentid.errors import ConsistentIDError, InvalidSettings

if TYPE_CHECKING:
    from consistentid.trust.verification import FileReport

_CODES = {"intact": 0, "changed": 4, "unknown": 5}  # 1: not readable, 2: not understood, 3: stopped
_WORST = (1, 4, 5, 0)
_SOURCES = {
    "trainedAlgorithmicMedia": "a new picture by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "an existing picture, changed by a trained model",
}


def verify(*files: Path, trust: Path | None = None, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Say what each file is: who made it, who signed it, and whether it was changed since; works on any picture.

    Exit code: 0 every file is as it was saved, 1 one cannot be read, 4 one was changed, 5 one says nothing that can be
    checked; of several files, the first of 1, 4, 5 that applies.

    Args:
        files: PNG, JPEG or WebP files.
        trust: PEM file of certificates that you trust, besides the one that `consistentid certificate` made.
        as_json: one JSON object a line instead of text, with the record of how the picture was made.
    """
    if not files:
        raise InvalidSettings("no file was named; give PNG, JPEG or WebP files")
    trusted = _trusted(trust)
    codes = {_verified(path, trusted=trusted, as_json=as_json) for path in files}
    return next(code for code in _WORST if code in codes)


def _verified(path: Path, *, trusted: str, as_json: bool) -> int:
    """Print what a file is; its exit code."""
    from consistentid.trust.verification import verify_file

    try:
        report = verify_file(path, trusted=trusted)
    except ConsistentIDError as error:  # of one file, which says nothing of the others
        sys.stderr.write(f"consistentid: {error}\n")
        return 1
    print(_line(path, report) if as_json else _text(path, report))
    return _CODES[report.verdict]


def _line(path: Path, report: "FileReport") -> str:
    found = ("verdict", "changes", "made_by", "is_ours", "is_generated", "source")
    told = {name: getattr(report, name) for name in found}
    return json.dumps({"file": str(path), **told, **asdict(report)}, ensure_ascii=False)


def _text(path: Path, report: "FileReport") -> str:
    words = {"intact": "as it was saved", "changed": "CHANGED", "unknown": "nothing in it can be checked"}
    rows = {
        "changed": "; ".join(report.changes),
        "made by": _made_by(report),
        "signature": _signature(report),
        "pixels": {True: "those that were saved", False: "others than were saved", None: ""}[report.pixels],
        "watermark": f"found ({report.watermark:.1f} standard deviations)" if report.is_marked else "none",
        "consent": report.label.consent if report.label is not None else "",
        "settings": _settings(report),
    }
    lines = [f"  {name:<10} {value}" for name, value in rows.items() if value]
    return "\n".join([f"{path}: {words[report.verdict]}", *lines])


def _made_by(report: "FileReport") -> str:
    if report.made_by is None:
        return "the file does not say"
    source = (report.source or "").rpartition("/")[2]
    said = f" ({_SOURCES.get(source, source)})" if source else ""
    return report.made_by + said


def _signature(report: "FileReport") -> str:
    found = report.credentials
    if found is None:
        return "none; anybody could have written what else the file says" if report.label is not None else "none"
    return {
        "trusted": f"valid, by {found.signer}, whom you trust",
        "valid": f"valid, by “{found.signer}”; that it was they is not proved",
        "invalid": f"does not hold; it was by “{found.signer}”",
        "unreadable": "cannot be read",
    }[found.state]


def _settings(report: "FileReport") -> str:
    record = report.record or (report.credentials.generation if report.credentials is not None else None) or {}
    told = {name: record.get(name) for name in ("model", "task", "seed", "steps", "prompt")}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)


def _trusted(trust: Path | None) -> str:
    """PEM of what is trusted: the user's own certificate, and what a file names."""
    from consistentid.trust.certificates import CERTIFICATE
    from consistentid.trust.safeguards import config_folder

    own = config_folder() / CERTIFICATE
    try:
        texts = [path.read_text() for path in (own, trust) if path is not None and (path != own or own.is_file())]
    except (OSError, UnicodeError) as error:
        raise InvalidSettings(f"the certificates in {trust} cannot be read ({error}); give a PEM file") from None
    if any("-----BEGIN CERTIFICATE-----" not in text for text in texts):
        raise InvalidSettings(f"{trust} holds no certificate; give a PEM file")
    return "\n".join(texts)
