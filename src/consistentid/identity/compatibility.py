"""Refusals of what does not belong to an adapter: another recogniser, another image encoder, unknown regions."""

from collections.abc import Collection, Iterable

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.config import AdapterConfig
from consistentid.identity.image_encoder import ImageEncoder


def check_image_encoder(encoder: ImageEncoder, config: AdapterConfig) -> None:
    """Compare the hidden states of an image encoder with those that the adapter reads.

    Raises:
        InvalidSettings: they differ in number or width.
    """
    if (encoder.num_tokens, encoder.hidden_size) != (config.image_tokens, config.image_dim):
        raise InvalidSettings(
            f"the image encoder gives {encoder.num_tokens} x {encoder.hidden_size} features, the adapter expects "
            f"{config.image_tokens} x {config.image_dim}; use the encoder it was trained with"
        )


def check_recogniser(analyses: Iterable[FaceAnalysis], config: AdapterConfig) -> None:
    """Compare the length of identity embeddings with what the adapter reads; who made them cannot be seen.

    Raises:
        InvalidSettings: an embedding is of another length.
    """
    wrong = [face.identity_embedding.size for face in analyses if face.identity_embedding.size != config.identity_dim]
    if wrong:
        raise InvalidSettings(
            f"the face's identity embedding has {wrong[0]} numbers, the adapter expects {config.identity_dim}; analyse "
            "the photo with the recogniser it was trained with (dlib gives 128, InsightFace and UniFace give 512)"
        )


def check_regions(regions: Collection[str] | None) -> None:
    """Refuse names that are no region.

    Raises:
        InvalidSettings: a name is unknown.
    """
    unknown = sorted(set(regions or ()) - set(REGION_NAMES))
    if unknown:
        raise InvalidSettings(f"unknown region {unknown[0]!r}; choose from {', '.join(REGION_NAMES)}")
