"""Photos -> face analyses, remembered while the process lives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.generation.loading import quiet_loading
from consistentid.generation.settings import GenerationSettings
from consistentid.images import PhotoSource, load_photo, pixels_sha256
from consistentid.memory import Memory

_REMEMBERED = 64


@dataclass(frozen=True)
class AnalysedPhoto:
    """An analysis and where it came from.

    Attributes:
        analysis: what was found.
        path: of the photo, None when it came from memory.
        sha256: of its pixels.
    """

    analysis: FaceAnalysis
    path: str | None
    sha256: str


class Analyses:
    """Analyses photos that it has not seen yet.

    Args:
        analyzer: finds the face; without it only finished analyses are accepted.
    """

    def __init__(self, analyzer: FaceAnalyzer | None) -> None:
        self.analyzer = analyzer
        self._known: Memory[FaceAnalysis] = Memory(_REMEMBERED)

    def forget(self) -> None:
        """Drop every analysis."""
        self._known.clear()

    def of(self, photo: PhotoSource | FaceAnalysis, settings: GenerationSettings) -> AnalysedPhoto:
        """The analysis of the face that the settings choose.

        Raises:
            InvalidSettings: there is no analyzer.
            UnreadableImage, NoFaceFound, FaceNotSelected: the photo cannot be used.
        """
        if isinstance(photo, FaceAnalysis):
            return AnalysedPhoto(photo, None, pixels_sha256(photo.photo))
        analyzer = self.analyzer
        if analyzer is None:
            raise InvalidSettings(
                "this generator has no face analyzer: an official adapter needs face_parsing.pth beside it "
                "(`consistentid weights fetch` gets it); else give analyzer=, or a finished FaceAnalysis"
            )
        path = str(Path(photo).resolve()) if isinstance(photo, str | Path) else None
        image = load_photo(photo)
        sha256 = pixels_sha256(np.asarray(image))
        if path is not None:
            image.filename = path  # type: ignore[attr-defined]  # so that messages name the file
        face = "largest" if settings.face is None else settings.face
        with quiet_loading():  # parsers load on first use
            analysis = self._known.get((sha256, face), lambda: analyzer.analyze(image, face=face))
        return AnalysedPhoto(analysis, path, sha256)
