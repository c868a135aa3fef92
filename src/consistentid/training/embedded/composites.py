"""Targets whose eyes, nose, mouth or ears are somebody else's: only region tokens can tell how these look.

Without them a model takes everything from the identity tokens, which know the whole face: weights and donors of single
regions then change nothing.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from consistentid.faces.regions import REGION_NAMES
from consistentid.training.augment import blend, soft
from consistentid.training.embedded.store import EXPRESSIONS, MIXED_REGIONS, SIZE, VOCABULARY, Targets

_EXPRESSION, _MOUTH = VOCABULARY.index(EXPRESSIONS), REGION_NAMES.index("mouth")
_MIXED = [REGION_NAMES.index(name) for name in MIXED_REGIONS]
_SOFTNESS = 2.0  # px
_RING = (0.02, 0.5)  # where the weights lie between these, the colours of both faces are compared


def with_composites(targets: Targets, *, variants: int, seed: int) -> Targets:
    """The targets, and further variants of each photo that show regions of another photo.

    Args:
        targets: faces lie in one place, so that regions do. Variants of equal parity are mirrored alike.
        variants: how many are added to each photo.
        seed: of the choice of photo, regions and variants.
    """
    made = [
        [_composite(targets, photo, added, seed) for added in range(variants)]
        for photo in range(len(targets.images) if variants else 0)
    ]
    return targets.joined(made) if made else targets


def _composite(targets: Targets, photo: int, added: int, seed: int) -> Targets:
    """One of them, without the dimensions of photos and variants."""
    rng = np.random.default_rng((seed, photo, added))
    variant = 2 * int(rng.integers(targets.images.shape[1] // 2)) + added % 2
    donor = int(rng.integers(len(targets.images)))
    host, other = targets.row(photo, variant), targets.row(donor, variant % 2)
    wanted = [region for region in _MIXED if host.regions[region].any() and other.regions[region].any()]
    chosen = [region for region in wanted if rng.random() < 0.5] or wanted[:1]
    picture, regions, words = host.images.numpy(), host.regions.clone(), host.words.clone()
    for region in chosen:
        regions[region] |= other.regions[region]
        picture = _pasted(picture, other.images.numpy(), _weight(regions[region]))
    if _MOUTH in chosen:
        words[_EXPRESSION] = other.words[_EXPRESSION]
    mixed = torch.zeros(len(REGION_NAMES), dtype=torch.bool)
    mixed[chosen] = True
    return Targets(torch.from_numpy(picture), host.foreground, regions, words, torch.tensor(donor), mixed)


def _weight(mask: Bool[Tensor, "16 16"]) -> Float[np.ndarray, "128 128"]:
    enlarged = F.interpolate(mask[None, None].float(), size=(SIZE, SIZE), mode="bilinear")[0, 0]
    return soft(enlarged.numpy(), _SOFTNESS)


def _pasted(
    below: UInt8[np.ndarray, "s s 3"], above: UInt8[np.ndarray, "s s 3"], weight: Float[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Matched in colour around the seam."""
    ring = (weight > _RING[0]) & (weight < _RING[1])
    moved = above + (below[ring].mean(0) - above[ring].mean(0))
    return blend(below, np.clip(moved, 0, 255), weight)
