"""A portrait beside the photo it was made from: how alike they are, region by region, as numbers and drawn."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from consistentid.errors import InvalidData, NoFaceFound
from consistentid.evaluation.embedders import DlibFeatures, cosine
from consistentid.evaluation.fgis import RegionSimilarity, embed_regions, region_crops, region_similarity
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.scores import enlarged

_LOW, _HIGH = np.array((214, 69, 65)), np.array((52, 152, 96))  # colours of 0 and 1
_STRENGTH = 0.5  # of the colour over the portrait
_SIDE = 512  # px, longer side of the drawing


@dataclass(frozen=True, eq=False)
class Likeness:
    """What was measured.

    Attributes:
        identity: cosine of the recogniser's embeddings.
        regions: FGIS, with dlib's features.
        portrait: what was found in the portrait.
    """

    identity: float
    regions: RegionSimilarity
    portrait: FaceAnalysis


def likeness_of(picture: Image.Image, reference: FaceAnalysis, *, analyzer: FaceAnalyzer) -> Likeness:
    """Compare a portrait with the photo's face.

    Args:
        picture: the portrait.
        reference: of the photo.
        analyzer: with the recogniser of the reference.

    Raises:
        NoFaceFound: the portrait shows none.
        InvalidData: one of the two has no landmarks to align it by.
    """
    try:
        portrait = analyzer.analyze(enlarged(picture))
    except NoFaceFound:
        raise NoFaceFound("no face was found in the portrait, so it cannot be compared with the photo") from None
    embedder = _embedder()
    first, second = (embed_regions(_crops(face), embedder) for face in (reference, portrait))
    identity = float(cosine(reference.identity_embedding, portrait.identity_embedding))
    return Likeness(identity, region_similarity(first, second), portrait)


def draw_likeness(likeness: Likeness) -> Image.Image:
    """The portrait with every compared region tinted from red (0) to green (1), and its number."""
    found = likeness.portrait
    tinted = found.photo.astype(np.float32)
    for name in REGION_NAMES:  # the face first: the others lie on it
        value = likeness.regions.regions.get(name)
        if value is not None and name in found.region_masks:
            mask, share = found.region_masks[name], min(1.0, max(0.0, value))
            colour = _LOW * (1 - share) + _HIGH * share
            tinted[mask] = found.photo[mask] * (1 - _STRENGTH) + colour * _STRENGTH
    image = Image.fromarray(tinted.round().astype(np.uint8))
    scale = _SIDE / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for name, value in likeness.regions.regions.items():
        place = _place(found.region_masks.get(name), top=name == "face")
        if place is not None:
            centre = (place[0] * scale, place[1] * scale)
            text = f"{name} {value:.2f}"
            draw.text(centre, text, fill="white", anchor="mm", stroke_width=3, stroke_fill="black", font_size=18)
    return image


def _place(mask: np.ndarray | None, *, top: bool) -> tuple[float, float] | None:
    """Where a region's number stands: the middle of its largest part, or (the face, under all others) the top."""
    import cv2

    if mask is None or not mask.any():
        return None
    if top:
        rows, columns = np.nonzero(mask)
        return float(columns.mean()), float(np.percentile(rows, 6))
    _, _, statistics, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    x, y = centres[1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())]
    return float(x), float(y)


def _crops(face: FaceAnalysis) -> dict[str, Image.Image]:
    if face.landmarks is None:
        raise InvalidData("eyes or nose are hidden, so the faces cannot be laid over each other and compared")
    return region_crops(face.photo, face.label_map, face.landmarks)


@cache
def _embedder() -> DlibFeatures:
    return DlibFeatures()
