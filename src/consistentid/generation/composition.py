"""Several people in one picture: each is predicted in a window of the canvas, and the predictions become one.

A batch has a row for every person of every picture. The rows of a picture hold the same canvas, because their noise is
drawn from the same seed and the U-Net answers them alike; they differ in text and identity tokens, so that everything
that conditions one portrait conditions one person of a picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.generation.places import Layout

_RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")  # of ControlNets


@contextmanager
def in_windows(unet: Any, layout: Layout | None) -> Iterator[None]:
    """Let a U-Net see every row's window alone, and answer all rows of a picture with the whole canvas.

    Args:
        unet: of a run whose rows belong to the people of `layout` in turn.
        layout: None leaves the U-Net alone.
    """
    if layout is None:
        yield
        return

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        sample, *rest = args
        residuals = {name: _cut_all(kwargs[name], layout) for name in _RESIDUALS if kwargs.get(name) is not None}
        return (_cut(sample, layout), *rest), {**kwargs, **residuals}

    def leave(_: Any, __: Any, output: Any) -> Any:
        return (_composed(output[0], layout), *output[1:])

    handles = [unet.register_forward_pre_hook(enter, with_kwargs=True), unet.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _cut_all(residuals: Any, layout: Layout) -> Any:
    if isinstance(residuals, Tensor):
        return _cut(residuals, layout)
    return tuple(_cut(one, layout) for one in residuals)


def _cut(canvases: Float[Tensor, "r c h w"], layout: Layout) -> Float[Tensor, "r c wh ww"]:
    """Every row's window, also of what the U-Net has halved."""
    scales = [round(whole / side) for whole, side in zip(layout.shares.shape[1:], canvases.shape[2:], strict=True)]
    height, width = (-(-side // scale) for side, scale in zip(layout.window, scales, strict=True))
    rows = []
    for index, canvas in enumerate(canvases):
        top, left = (
            start // scale for start, scale in zip(layout.corners[index % len(layout.corners)], scales, strict=True)
        )
        rows.append(canvas[:, top : top + height, left : left + width])
    return torch.stack(rows)


def _composed(windows: Float[Tensor, "r c wh ww"], layout: Layout) -> Float[Tensor, "r c h w"]:
    """The canvas of every picture, in each of its rows."""
    people, *canvas = layout.shares.shape
    shares = layout.shares.to(windows.device)
    height, width = layout.window
    whole = torch.zeros(len(windows) // people, windows.shape[1], *canvas, device=windows.device)
    for k, (top, left) in enumerate(layout.corners):
        inside = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
        whole[inside] += windows[k::people] * shares[k, inside[2], inside[3]]
    return whole.to(windows.dtype).repeat_interleave(people, dim=0)
