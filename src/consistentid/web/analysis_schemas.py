"""What `/v1/analyses` takes and gives."""

from typing import Self

import numpy as np

from consistentid.faces.analysis import FaceAnalysis
from consistentid.web.schemas import EncodedPhoto, Strict

Box = tuple[float, float, float, float]


class AnalysisSubmission(Strict):
    """A photo to analyse.

    Attributes:
        photo: JPEG, PNG or WebP file in base64.
        face: which face: largest, left, right, centre, left:1 for the second from the left, or a number.
    """

    photo: EncodedPhoto
    face: int | str = "largest"


class RegionFound(Strict):
    """A region of the face that the photo shows.

    Attributes:
        share: of the photo's pixels.
        box: left, top, right, bottom in pixels.
    """

    share: float
    box: Box


class Analysis(Strict):
    """What is found in a photo. Pixels are those of the upright photo, after it was shrunk to `size`.

    Attributes:
        size: width, height.
        faces: box of every face, the largest first: left, top, right, bottom; `face: k` chooses the k-th of those that
            are large enough.
        box: of the chosen face.
        landmarks: left eye, right eye, nose, left and right mouth corner, as the viewer sees them.
        regions: face, ears, eyes, nose, mouth: those that are visible.
        caption: description of the face, None where the model has a fixed one.
    """

    size: tuple[int, int]
    faces: tuple[Box, ...]
    box: Box
    landmarks: tuple[tuple[float, float], ...]
    regions: dict[str, RegionFound]
    caption: str | None

    @classmethod
    def of(cls, analysis: FaceAnalysis, *, faces: list[Box]) -> Self:
        """An analysis without pixels and without the identity embedding, which is biometric data."""
        landmarks = () if analysis.landmarks is None else analysis.landmarks.tolist()
        return cls(
            size=(analysis.photo.shape[1], analysis.photo.shape[0]),
            faces=tuple(_rounded(box) for box in faces),
            box=_rounded(analysis.box),
            landmarks=tuple((round(x, 1), round(y, 1)) for x, y in landmarks),
            regions={name: _region(mask) for name, mask in analysis.region_masks.items()},
            caption=analysis.description,
        )


def _rounded(box: Box) -> Box:
    left, top, right, bottom = (round(float(value), 1) for value in box)
    return left, top, right, bottom


def _region(mask: np.ndarray) -> RegionFound:
    rows, columns = np.nonzero(mask)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return RegionFound(share=round(float(mask.mean()), 5), box=box)
