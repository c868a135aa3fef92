"""The picture that a running denoiser is heading for, long before it is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Predict = Callable[[], Tensor]


@contextmanager
def predictions(unet: Any, scheduler: Any, *, guidance: float, branch: bool) -> Iterator[Predict]:
    """Watch a U-Net during a run; gives what tells the final latents that its last call predicts.

    Args:
        unet: of the run.
        scheduler: of the run; its noise levels and what it takes the U-Net's output for.
        guidance: scale of classifier-free guidance.
        branch: whether the first half of a call's rows are the guidance branch.
    """
    seen: dict[str, Any] = {}

    def ask(_: Any, args: tuple[Any, ...]) -> None:
        seen.update(sample=args[0], timestep=args[1])

    def answer(_: Any, __: tuple[Any, ...], output: Any) -> None:
        seen.update(output=output[0])

    def predict() -> Float[Tensor, "b c h w"]:
        output = seen["output"].float()
        sample = seen["sample"][:, : output.shape[1]].float()  # inpainting models read mask and picture behind it
        if branch:
            nobody, asked = output.chunk(2)
            output, sample = nobody + guidance * (asked - nobody), sample[len(nobody) :]
        level = scheduler.alphas_cumprod[int(seen["timestep"])].to(output)
        signal, noise = level.sqrt(), (1 - level).sqrt()
        kind = scheduler.config.prediction_type
        if kind == "v_prediction":
            return signal * sample - noise * output
        return output if kind == "sample" else (sample - noise * output) / signal.clamp(min=1e-4)

    # Before and after the hooks that are there already, which may show the U-Net something else than the pipeline does.
    handles = [unet.register_forward_pre_hook(ask, prepend=True), unet.register_forward_hook(answer)]
    try:
        yield predict
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def decoded(pipeline: Any, latents: Float[Tensor, "b c h w"]) -> list[Image.Image]:
    """Latents as pictures."""
    vae = pipeline.vae
    pixels = vae.decode(latents.to(vae.device, vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
    pictures: list[Image.Image] = pipeline.image_processor.postprocess(pixels.float())
    return pictures
