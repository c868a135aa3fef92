"""A picture -> everything that is measured on it; photos and portraits alike, each on its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from consistentid.errors import ConsistentIDError
from consistentid.evaluation.copying import head_pose
from consistentid.evaluation.embedders import DlibFeatures, ImageEmbedder
from consistentid.evaluation.fgis import embed_regions, embed_squares, region_crops, region_squares
from consistentid.evaluation.fingerprints import parser_identity
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.recognisers import DlibRecogniser, Recogniser
from consistentid.faces.analysis import with_lips
from consistentid.faces.attributes import measure_attributes
from consistentid.faces.crops import align_face
from consistentid.faces.detection import DetectedFace, DlibDetector, FaceDetector
from consistentid.faces.parsing import FaceParser, SegformerParser
from consistentid.faces.region_frame import FRAME_SIZE, FRAME_ZOOM
from consistentid.images import PhotoSource, load_photo

PARSED_SIDE = 256  # px; smaller pictures are enlarged before they are parsed, as the measures of attributes need it


class Judge:
    """Measures pictures.

    Args:
        parser: makes label maps.
        detector: finds faces; the face that counts is the largest.
        recognisers: tell who it is.
        regions: embeds regions for FGIS.
        images: embed whole pictures.
    """

    def __init__(
        self,
        parser: FaceParser,
        *,
        detector: FaceDetector | None = None,
        recognisers: Sequence[Recogniser] = (DlibRecogniser(),),
        regions: ImageEmbedder | None = None,
        images: Sequence[ImageEmbedder] = (),
    ) -> None:
        self.parser = parser
        self.detector = detector or DlibDetector()
        self.recognisers = recognisers
        self.regions = regions or DlibFeatures()
        self.images = images
        self._faces = DlibFeatures(grid=1)

    @classmethod
    def embedded(cls, folder: Path, **parts: object) -> "Judge":
        """With the parser of a model's folder; further parts as in the class."""
        return cls(SegformerParser(folder / "parser", offline=True), **parts)  # type: ignore[arg-type]

    @property
    def identity(self) -> str:
        """Which networks measure, for caches."""
        parts = ["with squares", parser_identity(self.parser), self.detector.name]
        parts += [recogniser.name for recogniser in self.recognisers]
        parts += [f"{each.name} {each.sha256}" for each in (self.regions, *self.images)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def measure(self, picture: PhotoSource, *, rank: int = 0) -> Measured:
        """Measure one picture; `Measured.failure` says why it could not be.

        Args:
            picture: anything `images.load_photo` reads.
            rank: which face, counted from the largest.
        """
        try:
            photo = np.asarray(load_photo(picture))
        except ConsistentIDError as error:
            return Measured(failure=str(error))
        whole = Image.fromarray(photo)
        images = {embedder.name: embedder.embed([whole])[0] for embedder in self.images}
        faces = self.detector.detect(photo)
        if rank >= len(faces):
            return Measured(failure="no face" if rank == 0 else f"no face number {rank + 1}", images=images)
        face = faces[rank]
        found = {recogniser.name: recogniser.embed(photo, face) for recogniser in self.recognisers}
        enlarged, moved = _enlarged(photo, face)
        label_map = self.parser.parse(enlarged, moved)
        landmarks = with_lips(moved.landmarks, label_map)
        chip = align_face(Image.fromarray(enlarged), landmarks, FRAME_SIZE, zoom=FRAME_ZOOM)
        return Measured(
            faces=len(faces),
            identity={name: embedding for name, embedding in found.items() if embedding is not None},
            regions=embed_regions(region_crops(enlarged, label_map, landmarks), self.regions),
            squares=embed_squares(region_squares(enlarged, label_map, landmarks), self.regions),
            images=images,
            face=self._faces.embed([chip])[0],
            pose=head_pose(landmarks),
            attributes=measure_attributes(enlarged, label_map),
        )


def _enlarged(photo: np.ndarray, face: DetectedFace) -> tuple[np.ndarray, DetectedFace]:
    """The picture and its face at `PARSED_SIDE` at least."""
    scale = PARSED_SIDE / max(photo.shape[:2])
    if scale <= 1:
        return photo, face
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    larger = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    left, top, right, bottom = (value * scale for value in face.box)
    landmarks = (face.landmarks * scale).astype(np.float32)
    return larger, replace(face, box=(left, top, right, bottom), landmarks=landmarks)
