"""What runs through the wires between these nodes."""

from dataclasses import dataclass, field

from consistentid.generation.analyses import Analyses
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.image_encoder import ImageEncoder
from consistentid.identity.tensor_cache import TensorCache

CATEGORY = "ConsistentID"
LOADED, FACE, CONTROL = "CONSISTENTID", "CONSISTENTID_FACE", "CONSISTENTID_CONTROL"


@dataclass(frozen=True, eq=False)
class Loaded:
    """An identity adapter with the networks it was trained with.

    Attributes:
        adapter: the method's weights, outside of any U-Net.
        analyses: finds faces and remembers them.
        image_encoder: describes the photo and its regions.
        features: what the image encoder said, so that two nodes do not ask it twice.
    """

    adapter: IdentityAdapter
    analyses: Analyses
    image_encoder: ImageEncoder
    features: TensorCache = field(default_factory=TensorCache)
