"""FGIS, fine-grained identity similarity: is each region of the face that of the reference?

The paper (arXiv:2404.16771) reports the mean cosine of DINO embeddings of corresponding facial regions. How these are
aligned, cropped and masked is not said, and no code was released. This is our definition:

1. both faces are turned upright and scaled by eyes and nose into one square frame (`crops.align_face`), and so are
   their label maps;
2. a region's mask is its own labels only: eyes, nose and mouth are no part of the face here, so that no pixel counts
   for two regions;
3. its crop is the square around the mask, a tenth larger, black outside the mask;
4. an embedder looks at the crops; the similarity of a region is the cosine of the two;
5. FGIS is the mean over the regions that both faces show. The others are counted, not averaged.

The outline of a mask is the parser's, and of a portrait of 128 px hardly known. `region_squares` are the same regions
without masks: pixels count for several of them, but they tell better whose region it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from consistentid.evaluation.embedders import ImageEmbedder, cosine
from consistentid.faces.crops import Square, align_face, crop_square
from consistentid.faces.region_frame import FRAME_SIZE, FRAME_ZOOM, MARGIN, OWN_LABELS, PAIRS, SMALLEST, sides
from consistentid.faces.regions import REGION_NAMES

CROP_SIZE = 150  # px


@dataclass(frozen=True)
class RegionSimilarity:
    """FGIS of one portrait.

    Attributes:
        regions: cosine of every region that both faces show.
        mean: FGIS; NaN when they share none.
        missing: regions that only one of the two shows, or neither.
    """

    regions: dict[str, float]
    mean: float
    missing: tuple[str, ...]


def region_crops(
    photo: UInt8[np.ndarray, "h w 3"], label_map: UInt8[np.ndarray, "h w"], landmarks: Float[np.ndarray, "5 2"]
) -> dict[str, Image.Image]:
    """Steps 1 to 3: a crop of every region that is visible.

    Args:
        photo: RGB.
        label_map: of the photo.
        landmarks: of the face, px.
    """
    face, masks = _upright(photo, label_map, landmarks)
    return {
        name: _crop(np.where(mask[..., None], face, 0), mask) for name, mask in masks.items() if mask.sum() >= SMALLEST
    }


def region_squares(
    photo: UInt8[np.ndarray, "h w 3"], label_map: UInt8[np.ndarray, "h w"], landmarks: Float[np.ndarray, "5 2"]
) -> dict[str, list[Image.Image]]:
    """The squares of step 3 with all that they show, one for each eye and each ear; arguments as for `region_crops`."""
    face, masks = _upright(photo, label_map, landmarks)
    parts = {name: sides(mask) if name in PAIRS else (mask,) for name, mask in masks.items()}
    seen = {name: [part for part in row if part.sum() >= SMALLEST] for name, row in parts.items()}
    return {name: [_crop(face, part) for part in row] for name, row in seen.items() if row}


def _upright(
    photo: UInt8[np.ndarray, "h w 3"], label_map: UInt8[np.ndarray, "h w"], landmarks: Float[np.ndarray, "5 2"]
) -> tuple[UInt8[np.ndarray, "s s 3"], dict[str, Bool[np.ndarray, "s s"]]]:
    """Steps 1 and 2: the upright face and the mask of every region."""
    face = align_face(Image.fromarray(photo), landmarks, FRAME_SIZE, zoom=FRAME_ZOOM)
    labels = align_face(Image.fromarray(label_map), landmarks, FRAME_SIZE, zoom=FRAME_ZOOM, nearest=True)
    return np.asarray(face), {name: np.isin(np.asarray(labels), numbers) for name, numbers in OWN_LABELS.items()}


def _crop(face: UInt8[np.ndarray, "s s 3"], mask: Bool[np.ndarray, "s s"]) -> Image.Image:
    """The square around a mask."""
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    side = MARGIN * max(bottom - top, right - left)
    square = Square((left + right - side) / 2, (top + bottom - side) / 2, side)
    visible = np.pad(face, ((1, 1), (1, 1), (0, 0)))  # black also past the border
    return crop_square(Image.fromarray(visible), Square(square.left + 1, square.top + 1, side), CROP_SIZE)


def embed_regions(crops: Mapping[str, Image.Image], embedder: ImageEmbedder) -> dict[str, Float[np.ndarray, " d"]]:
    """Step 4: an embedding of every crop."""
    names = [name for name in REGION_NAMES if name in crops]
    return dict(zip(names, embedder.embed([crops[name] for name in names]), strict=True))


def embed_squares(
    squares: Mapping[str, Sequence[Image.Image]], embedder: ImageEmbedder
) -> dict[str, Float[np.ndarray, " d"]]:
    """An embedding of every region's squares, each of length 1; of two the mean."""
    found = embedder.embed([square for row in squares.values() for square in row])
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    ends = np.cumsum([len(row) for row in squares.values()])[:-1]
    return {name: row.mean(0) for name, row in zip(squares, np.split(found, ends), strict=True)} if squares else {}


def region_similarity(
    first: Mapping[str, Float[np.ndarray, " d"]], second: Mapping[str, Float[np.ndarray, " d"]]
) -> RegionSimilarity:
    """Step 5: compare the regions of two faces."""
    shared = [name for name in REGION_NAMES if name in first and name in second]
    regions = {name: float(cosine(first[name], second[name])) for name in shared}
    mean = float(np.mean(list(regions.values()))) if regions else float("nan")
    return RegionSimilarity(regions, mean, tuple(name for name in REGION_NAMES if name not in regions))
