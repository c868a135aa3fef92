"""Pictures and texts -> embeddings, behind two protocols: dlib's features, DINO and CLIP."""

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image

from consistentid.errors import WeightsNotFound, first_line


class ImageEmbedder(Protocol):
    """A frozen network that says what a picture looks like.

    Attributes:
        name: in tables.
    """

    name: str

    @property
    def sha256(self) -> str:
        """Of its weights."""
        ...

    def embed(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Embeddings of RGB pictures of any size; an empty list gives (0, d)."""
        ...


class ImageTextEmbedder(ImageEmbedder, Protocol):
    """An embedder that has texts and pictures in one space."""

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Embeddings of texts."""
        ...


class DlibFeatures:
    """Feature maps of dlib's face recogniser (64, 128 and 256 channels) on a small grid, less those of a black picture.

    The embedded stand-in for DINO: no download, and what it looks at is faces. The network clips its features at zero:
    with what every picture has in common, cosines of two regions of different people were 0.98 to 0.998, without it
    0.55 to 0.82.

    Args:
        grid: cells along a side of the picture.
    """

    name = "dlib features"

    def __init__(self, *, grid: int = 2) -> None:
        self.grid = grid

    @property
    def _encoder(self) -> Any:
        return _dlib_encoder()

    @cached_property
    def sha256(self) -> str:
        """See `ImageEmbedder.sha256`."""
        return _weights_sha256(self._encoder.network, {"grid": self.grid})

    def embed(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """See `ImageEmbedder.embed`."""
        if not pictures:
            return np.zeros((0, self._encoder.hidden_size * self.grid**2), np.float32)
        return self._features(pictures) - self._black

    @cached_property
    def _black(self) -> Float[np.ndarray, "1 d"]:
        return self._features([Image.new("RGB", (self._encoder.image_size, self._encoder.image_size))])

    def _features(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        from torch.nn import functional as F

        encoder = self._encoder
        states = encoder.encode(encoder.pixels(pictures))  # (n, 64, 448), an 8 x 8 grid
        maps = states.transpose(1, 2).unflatten(2, (8, 8))
        return F.adaptive_avg_pool2d(maps, self.grid).flatten(1).numpy()


class _Pretrained:
    """A model of transformers and its processor, read when they are first used.

    Args:
        source: local folder or hub id.
        name: in tables.
        offline: never download.
    """

    _model_class: str
    _default_name: str

    def __init__(self, source: str | Path, *, name: str | None = None, offline: bool = True) -> None:
        self.source, self.name, self.offline = str(source), name or self._default_name, offline

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        import transformers

        kind = getattr(transformers, self._model_class)
        return _processor(self.source, offline=self.offline), _model(kind, self.source, offline=self.offline)

    @cached_property
    def sha256(self) -> str:
        """See `ImageEmbedder.sha256`."""
        return _weights_sha256(self._parts[1], {})


class DinoEmbedder(_Pretrained):
    """The class token of a vision transformer, such as DINO ViT-S/16 (`facebook/dino-vits16`)."""

    _model_class, _default_name = "AutoModel", "dino"

    def embed(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """See `ImageEmbedder.embed`."""
        import torch

        processor, model = self._parts
        if not pictures:
            return np.zeros((0, model.config.hidden_size), np.float32)
        pixels = processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            return model(**pixels).last_hidden_state[:, 0].float().numpy()


class ClipEmbedder(_Pretrained):
    """Both towers of CLIP, such as `openai/clip-vit-large-patch14`."""

    _model_class, _default_name = "CLIPModel", "clip"

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.source, local_files_only=self.offline)

    def embed(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """See `ImageEmbedder.embed`."""
        import torch

        processor, model = self._parts
        if not pictures:
            return np.zeros((0, model.config.projection_dim), np.float32)
        pixels = processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            return model.visual_projection(model.vision_model(**pixels).pooler_output).float().numpy()

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """See `ImageTextEmbedder.embed_texts`; each text on its own, so that padding is never read."""
        import torch

        _, model = self._parts
        with torch.inference_mode():
            rows = [
                model.text_projection(
                    model.text_model(**self._tokenizer(text, truncation=True, return_tensors="pt")).pooler_output
                )
                for text in texts
            ]
        return torch.cat(rows).float().numpy()


def cosine(first: Float[np.ndarray, "*n d"], second: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Cosine similarity along the last axis; 0 where one of the two is zero."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / np.where(lengths > 0, lengths, 1)


@cache
def _dlib_encoder() -> Any:
    """Read once, whatever the grid."""
    from consistentid.identity.dlib_image_encoder import DlibImageEncoder

    return DlibImageEncoder()


def _processor(source: str, *, offline: bool) -> Any:
    """The PIL processor: the others need torchvision (ADR 0009)."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(source, local_files_only=offline, backend="pil")
    except (OSError, ValueError) as error:
        raise WeightsNotFound(f"no image processor at {source} ({first_line(error)})") from error


def _model(kind: Any, source: str, *, offline: bool) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(source, local_files_only=offline, dtype="float32").eval()
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsNotFound(
            f"no {kind.__name__} at {source} ({first_line(error)}); give its folder, or leave this measure out"
        ) from error


def _weights_sha256(module: Any, options: dict[str, object]) -> str:
    from consistentid.generation.fingerprint import weights_sha256

    return weights_sha256({"model": module}, {"options": options})
