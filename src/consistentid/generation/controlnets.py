"""The ControlNets of a request, and what they must fit."""

from collections.abc import Iterable
from typing import Any

from consistentid.errors import InvalidSettings


def networks_of(controlnet: Any) -> list[Any]:
    """Every ControlNet of a pipeline's component.

    Args:
        controlnet: one, a list, diffusers' `MultiControlNetModel`, or None.
    """
    given = getattr(controlnet, "nets", controlnet)
    if isinstance(given, Iterable):
        return list(given)
    return [] if given is None else [given]


def check_controlnets(controlnet: Any, *, pictures: Any, num_images: int, unet: Any) -> None:
    """Compare ControlNets with the base model and with their pictures.

    Args:
        controlnet: as in `networks_of`.
        pictures: what they are given to look at; a single ControlNet may get one for every image.
        num_images: of the request.
        unet: of the base model.

    Raises:
        InvalidSettings: one was made for another base model, or pictures are missing or left over.
    """
    networks = networks_of(controlnet)
    own = unet.config.cross_attention_dim
    for network in networks:
        width = network.config.cross_attention_dim
        if width != own:
            raise InvalidSettings(
                f"a ControlNet reads texts of width {width}, the base model's U-Net of {own}; use one that was made "
                "for this base model"
            )
    needed, count = len(networks), len(pictures) if isinstance(pictures, list | tuple) else 1
    if count not in ({1, num_images} if needed == 1 else {needed}):
        raise InvalidSettings(
            f"every ControlNet needs one control image; ControlNets given: {needed}, control images given: {count}"
        )
