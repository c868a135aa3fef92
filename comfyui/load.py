"""The node that reads an identity adapter, and ComfyUI's image encoder as the package calls it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistentid.generation.analyses import Analyses
from consistentid.generation.loading import EMBEDDED, analyzer_for, embedded_folder, quiet_loading
from consistentid.generation.sources import encoder_source
from consistentid.identity.adapter import CONFIG_NAME, WEIGHTS_NAME
from consistentid.identity.checkpoint import load_adapter
from consistentid.identity.compatibility import check_image_encoder
from consistentid.identity.config import ImageEncoderConfig
from consistentid.identity.image_encoder import ClipPixels, ImageEncoder, image_encoder_for

from .sockets import CATEGORY, LOADED, Loaded

FOLDER = "consistentid"  # below ComfyUI's models
folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


class LoadConsistentID:
    """Reads an identity adapter; nothing is downloaded."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Reads ConsistentID's weights and the face models that belong to them. Put ConsistentID-v1.bin or "
        "ConsistentID_SDXL-v1.bin, with face_parsing.pth beside it, into models/consistentid."
    )
    RETURN_TYPES = (LOADED,)
    RETURN_NAMES = ("consistentid",)
    OUTPUT_TOOLTIPS = ("The adapter, its face models and its image encoder.",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """The adapters in ComfyUI's models folder."""
        return {
            "required": {
                "adapter": (
                    adapter_names(),
                    {
                        "tooltip": "A released file, or a folder written by this project, in models/consistentid. "
                        "`embedded` is the small adapter in the package, to try Analyse Face with; its base model "
                        "is none that ComfyUI can load."
                    },
                ),
            },
            "optional": {
                "clip_vision": (
                    "CLIP_VISION",
                    {
                        "tooltip": "CLIP ViT-H/14 (laion2B), which the released adapters need. Without it, the copy "
                        "in the hub's cache is used, if `consistentid weights fetch` put one there."
                    },
                ),
            },
        }

    def load(self, adapter: str, clip_vision: Any = None) -> tuple[Loaded]:
        """Read an adapter.

        Args:
            adapter: one of `adapter_names`.
            clip_vision: ComfyUI's image encoder.

        Raises:
            WeightsNotFound: a file is missing or does not fit.
            InvalidSettings: the image encoder is not the one that the adapter was trained with.
        """
        path = adapter_path(adapter)
        with quiet_loading():
            loaded = load_adapter(path)
            loaded.facial_encoder.to(torch.float32)
            folder = path.parent if path.is_file() else path
            analyzer = analyzer_for(embedded_folder(), loaded, folder, device="cpu", offline=True)
            encoder = _image_encoder(loaded.config.image_encoder, clip_vision)
        check_image_encoder(encoder, loaded.config)
        return (Loaded(loaded, Analyses(analyzer), encoder),)


def adapter_names() -> list[str]:
    """Adapters to choose from; the parser's weights, which lie beside the released ones, are none."""
    names = [Path(name) for name in folder_paths.get_filename_list(FOLDER)]
    weights = [name for name in names if name.suffix in {".bin", ".safetensors"} and name.stem != "face_parsing"]
    return [*map(str, weights), EMBEDDED]


def adapter_path(name: str) -> Path:
    """Where an adapter is: a released file, or the folder of one of this project's."""
    if name == EMBEDDED:
        return embedded_folder() / "adapter"
    path = Path(folder_paths.get_full_path_or_raise(FOLDER, name))
    return path.parent if path.name == WEIGHTS_NAME and (path.parent / CONFIG_NAME).is_file() else path


def _image_encoder(config: ImageEncoderConfig, clip_vision: Any) -> ImageEncoder:
    if clip_vision is not None and config.kind == "clip":
        return ComfyImageEncoder(clip_vision)
    return image_encoder_for(
        config.model_copy(update={"source": encoder_source(config.source, offline=True)}), offline=True
    )


class ComfyImageEncoder:
    """A CLIP_VISION of ComfyUI as an `ImageEncoder`; the pictures are prepared as the package does.

    Args:
        clip_vision: a `comfy.clip_vision.ClipVisionModel`.
    """

    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision
        embeddings = clip_vision.model.vision_model.embeddings
        self.num_tokens, self.hidden_size = embeddings.position_embedding.weight.shape
        self.image_size: int = clip_vision.image_size
        self._processor = ClipPixels(self.image_size)

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 3 s s"]:
        """See `ImageEncoder.pixels`."""
        return self._processor(images)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """See `ImageEncoder.encode`."""
        comfy.model_management.load_model_gpu(self.clip_vision.patcher)
        states = self.clip_vision.model(pixel_values=pixels.to(self.clip_vision.load_device), intermediate_output=-2)[1]
        return states.float().cpu()
