"""Options that trade time, memory and precision, none of which a portrait needs."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    import torch


class Optimisation(BaseModel):
    """How the networks are held and run.

    Attributes:
        channels_last: memory layout of U-Net and autoencoder; faster on most devices.
        attention_slicing: self-attention head by head: less memory, slower; for devices without fused attention.
        vae_slicing: decode the pictures of a batch one by one.
        vae_tiling: decode large pictures in overlapping tiles, which may show.
        offload: keep the weights on the CPU and move to the accelerator the network (model) or the layer (sequential)
            that runs.
        quantization: weights of the base model's U-Net in 8 or 4 bits; needs bitsandbytes.
        compile: compile the transformer blocks with torch.compile: minutes once, then faster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels_last: bool = True
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: Literal["model", "sequential"] | None = None
    quantization: Literal["8bit", "4bit"] | None = None
    compile: bool = False

    @property
    def merges_loras(self) -> bool:
        """Whether LoRAs can be added to the weights: not to packed ones, nor to those that are moved layer by layer."""
        return self.quantization is None and self.offload != "sequential"


def check_optimisation(chosen: Optimisation, *, device: "torch.device", single_file: bool = False) -> None:
    """Refuse what the machine cannot do, before anything is loaded.

    Raises:
        InvalidSettings: there is no accelerator to offload from, a package is missing, or options exclude each other.
    """
    if chosen.offload is not None and device.type == "cpu":
        raise InvalidSettings(
            f"offload={chosen.offload} moves weights between the CPU and an accelerator; choose one, such as "
            "device=cuda, or leave offload out"
        )
    if chosen.quantization is not None and single_file:
        raise InvalidSettings(
            f"quantization={chosen.quantization} needs the base model as a folder or a hub id, not as one file"
        )
    if chosen.quantization is not None and find_spec("bitsandbytes") is None:
        raise InvalidSettings(
            f"quantization={chosen.quantization} needs bitsandbytes, which is not installed: pip install bitsandbytes"
        )
    if chosen.compile and chosen.offload is not None:
        raise InvalidSettings("a compiled U-Net cannot be offloaded; choose one of compile and offload")


def loading_arguments(chosen: Optimisation) -> dict[str, Any]:
    """What a pipeline's `from_pretrained` is given besides."""
    if chosen.quantization is None:
        return {}
    from diffusers.quantizers import PipelineQuantizationConfig

    config = PipelineQuantizationConfig(
        quant_backend=f"bitsandbytes_{chosen.quantization}",
        quant_kwargs={f"load_in_{chosen.quantization}": True},
        components_to_quantize=["unet"],
    )
    return {"quantization_config": config}


def optimise(pipeline: Any, chosen: Optimisation) -> None:
    """Apply everything but offloading to a pipeline with the adapter attached; detaching undoes the slicing."""
    import torch

    from consistentid.identity.layout import attention_layers

    unet, vae = pipeline.unet, pipeline.vae
    if chosen.channels_last:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if chosen.attention_slicing:
        for layer in attention_layers(unet):
            if not layer.is_cross:  # cross-attention is small, and its processor carries the identity tokens
                layer.module.set_attention_slice(1)
    if chosen.vae_slicing:
        vae.enable_slicing()
    if chosen.vae_tiling:
        vae.enable_tiling()
    if chosen.compile:
        # Blocks, not the whole: what stands for the projector is exchanged in every run, and would be compiled anew.
        unet.compile_repeated_blocks()


def offload(pipeline: Any, chosen: Optimisation, *, device: "torch.device") -> None:
    """Start offloading; the last step, because hooks move what is called from then on."""
    if chosen.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif chosen.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
