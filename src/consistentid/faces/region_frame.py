"""The upright frame in which regions of faces are compared, and how they are cut out of it."""

import numpy as np
from jaxtyping import Bool

from consistentid.faces.regions import LEFT_BROW, REGIONS, RIGHT_BROW, SKIN

FRAME_SIZE = 256  # px
FRAME_ZOOM = 0.7  # of `crops.align_face`: with the ears
SMALLEST = 12  # px of a mask; less is noise of the parser
MARGIN = 1.1  # side of the square around a region / its longer side
# Its own labels only: eyes, nose and mouth are no part of the face here, so that no pixel counts for two regions.
OWN_LABELS = {region.name: region.labels for region in REGIONS} | {"face": (SKIN, LEFT_BROW, RIGHT_BROW)}
PAIRS = ("ears", "eyes")


def sides(mask: Bool[np.ndarray, "s s"]) -> tuple[Bool[np.ndarray, "s s"], Bool[np.ndarray, "s s"]]:
    """The parts of a mask of the frame that lie left and right of its middle: one eye or ear each."""
    left = np.arange(mask.shape[1]) < mask.shape[1] // 2
    return mask & left, mask & ~left
