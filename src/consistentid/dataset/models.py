"""Detector and parser by their names in the settings."""

from importlib.resources import files
from pathlib import Path

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.faces.detection import DLIB_LOOKS, DlibDetector, FaceDetector
from consistentid.faces.parsing import FaceParser, SegformerParser


def detector_of(name: str) -> FaceDetector:
    """The detector called "dlib", "dlib hog", "dlib hog small", "insightface", "insightface antelopev2" or "uniface".

    Raises:
        InvalidSettings: there is none of this name.
    """
    kind, *words = name.split()
    if kind == "dlib" and set(words) <= set(DLIB_LOOKS):
        return DlibDetector(*words)
    if kind == "insightface" and len(words) < 2:
        from consistentid.faces.arcface import InsightFaceDetector

        return InsightFaceDetector(*words, offline=True)
    if kind == "uniface" and not words:
        from consistentid.faces.arcface import UnifaceDetector

        return UnifaceDetector(offline=True)
    raise InvalidSettings(
        f"{name!r} is no detector; take dlib, insightface or uniface, or dlib with some of {', '.join(DLIB_LOOKS)}"
    )


def parser_of(name: str) -> FaceParser:
    """The embedded parser, a SegFormer in a folder, or a BiSeNet in a file.

    Raises:
        WeightsNotFound: there is none.
    """
    path = Path(str(files("consistentid.embedded"))) / "parser" if name == "embedded" else Path(name).expanduser()
    if (path / "config.json").is_file():
        return SegformerParser(path, offline=True)
    if path.is_file():
        from consistentid.faces.bisenet import BisenetParser

        return BisenetParser(path)
    raise WeightsNotFound(f"no face parser at {path}; give a SegFormer's folder, face_parsing.pth or 'embedded'")
