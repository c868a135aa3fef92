"""The one table of the five regions: which parser labels belong to a region and which words name it.

Label maps use the class numbers of CelebAMask-HQ; of a pair the lower number is on the viewer's left.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

LABEL_NAMES = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear",
    "earring", "nose", "inner_mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
(
    BACKGROUND, SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, GLASSES, LEFT_EAR, RIGHT_EAR,
    EARRING, NOSE, INNER_MOUTH, UPPER_LIP, LOWER_LIP, NECK, NECKLACE, CLOTH, HAIR, HAT,
) = range(len(LABEL_NAMES))  # fmt: skip

MIRRORED_LABELS = ((LEFT_BROW, RIGHT_BROW), (LEFT_EYE, RIGHT_EYE), (LEFT_EAR, RIGHT_EAR))
LIPS = (INNER_MOUTH, UPPER_LIP, LOWER_LIP)


@dataclass(frozen=True)
class Region:
    """One part of the face that has a word in the caption and a token of its own.

    Attributes:
        name: one of `REGION_NAMES`.
        labels: classes of the label map that make up the region in aligned mode.
        official_labels: classes the released checkpoints were trained with; only the first one present is used.
        words: words of a caption that stand for the region.
        filled: whether holes inside the region belong to it (the face contains eyes, nose and mouth).
    """

    name: str
    labels: tuple[int, ...]
    official_labels: tuple[int, ...]
    words: tuple[str, ...]
    filled: bool = False


# In the order of the paper's words (arXiv:2404.16771, section 3.1).
REGIONS: tuple[Region, ...] = (
    Region(
        "face",
        (SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, GLASSES, NOSE, *LIPS),
        (SKIN,),
        ("face",),
        filled=True,
    ),
    Region("ears", (LEFT_EAR, RIGHT_EAR), (LEFT_EAR, RIGHT_EAR), ("ears", "ear")),
    Region("eyes", (LEFT_EYE, RIGHT_EYE, GLASSES), (LEFT_EYE, RIGHT_EYE), ("eyes", "eye")),
    Region("nose", (NOSE,), (NOSE,), ("nose",)),
    Region("mouth", LIPS, (UPPER_LIP, LOWER_LIP), ("mouth", "lips", "lip")),
)
REGION_NAMES: tuple[str, ...] = tuple(region.name for region in REGIONS)


def region_masks(label_map: UInt8[np.ndarray, "h w"]) -> dict[str, Bool[np.ndarray, "h w"]]:
    """Aligned mode: the mask of every region that is present, in the order of `REGIONS`; both of a pair together."""
    masks = {}
    for region in REGIONS:
        mask = np.isin(label_map, region.labels)
        if mask.any():
            masks[region.name] = fill_contours(mask) if region.filled else mask
    return masks


def official_region_masks(
    label_map: UInt8[np.ndarray, "h w"], *, size: tuple[int, int] | None = None
) -> dict[str, UInt8[np.ndarray, "h2 w2"]]:
    """Official mode: masks of 0..255 as the released checkpoints were trained with them (design notes 4 and 5).

    Outer contours are filled, of a pair only the first label present is used, and the regions come in the order of
    their labels: face, eyes, ears, nose, mouth. That order matters, because the release pairs images with words by
    position.

    Args:
        label_map: classes of the whole photo, at the parser's own resolution (512 x 512 in the release).
        size: width and height of the photo; masks are resized to it with PIL's default (bicubic) filter.
    """
    masks = {}
    for region in sorted(REGIONS, key=lambda region: region.official_labels):
        present = [label for label in region.official_labels if (label_map == label).any()]
        if not present:
            continue
        mask = fill_contours(label_map == present[0]).astype(np.uint8) * 255
        resized = mask if size is None else np.asarray(Image.fromarray(mask).resize(size))
        masks[region.name] = resized
    return masks


def fill_contours(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask with everything inside its outer contours."""
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def mirror_labels(label_map: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The label map of the mirrored photo: flipped, with the sides of every pair swapped."""
    table = np.arange(256, dtype=np.uint8)
    for left, right in MIRRORED_LABELS:
        table[left], table[right] = right, left
    return table[label_map[:, ::-1]]
