"""The images that the image encoder sees: one of the whole person, one of each facial region on black."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from consistentid.faces.analysis import FaceAnalysis, landmarks_of_labels
from consistentid.faces.crops import align_face
from consistentid.faces.regions import region_masks
from consistentid.identity.config import Quirks

ALIGNED_SIZE = 150
WHOLE_ZOOM = 0.7  # the whole branch shows the head, the regions the face
_NOT_THE_HEAD = (0, 16)  # background and clothes: they must come from the text, not from the photo


@dataclass(frozen=True)
class ReferenceImages:
    """Images for the image encoder; regions that the photo does not show are missing."""

    whole: Image.Image
    regions: dict[str, Image.Image]


def reference_images(analysis: FaceAnalysis, quirks: Quirks) -> ReferenceImages:
    """What the image encoder is to see of an analysed face.

    Raises:
        InvalidData: aligned mode needs landmarks, which the analysis lacks.
    """
    if quirks.reference == "photo":
        return photo_reference(analysis.photo, analysis.official_region_masks)
    landmarks = landmarks_of_labels(analysis.label_map) if analysis.landmarks is None else analysis.landmarks
    return aligned_reference(analysis.photo, analysis.label_map, landmarks)


def photo_reference(photo: UInt8[np.ndarray, "h w 3"], masks: dict[str, UInt8[np.ndarray, "h w"]]) -> ReferenceImages:
    """Mode `official`: the whole photo, and the photo on black under masks of 0..255."""
    image = Image.fromarray(photo)
    black = Image.new("RGB", image.size)
    return ReferenceImages(
        whole=image,
        regions={name: Image.composite(image, black, Image.fromarray(mask)) for name, mask in masks.items()},
    )


def aligned_reference(
    photo: UInt8[np.ndarray, "h w 3"],
    label_map: UInt8[np.ndarray, "h w"],
    landmarks: Float[np.ndarray, "5 2"],
) -> ReferenceImages:
    """Mode `aligned`: the upright head without its background, and the upright face cut to each region's mask."""
    image, labels = Image.fromarray(photo), Image.fromarray(label_map)
    head = np.asarray(align_face(image, landmarks, ALIGNED_SIZE, zoom=WHOLE_ZOOM))
    head_labels = np.asarray(align_face(labels, landmarks, ALIGNED_SIZE, zoom=WHOLE_ZOOM, nearest=True))
    face = np.asarray(align_face(image, landmarks, ALIGNED_SIZE))
    masks = region_masks(np.asarray(align_face(labels, landmarks, ALIGNED_SIZE, nearest=True)))
    return ReferenceImages(
        whole=_on_black(head, ~np.isin(head_labels, _NOT_THE_HEAD)),
        regions={name: _on_black(face, mask) for name, mask in masks.items()},
    )


def _on_black(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(mask[..., None], image, 0).astype(np.uint8))
