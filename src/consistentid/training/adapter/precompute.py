"""Latents and image features computed once: more than half of a step on a large base model."""

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from consistentid.dataset.files import appearing
from consistentid.identity.checksum import checksum
from consistentid.training.adapter.photos import OpenedPhotos, Reference, Target
from consistentid.training.adapter.task import FrozenEncoders

CHUNK = 64  # records of a file


@dataclass(frozen=True)
class PrecomputedPhotos:
    """Targets and references whose latents and features were computed before.

    Attributes:
        folder: what `precompute` wrote.
        variants: of each photo.
    """

    folder: Path
    variants: int
    _files: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    def target(self, index: int, variant: int) -> Target:
        """What is to be drawn."""
        get = self._reader(index, variant)
        return Target(get("latents"), get("foreground").float(), get("regions").float(), get("place"))

    def reference(self, index: int, variant: int) -> Reference:
        """What is shown of the person."""
        get = self._reader(index, variant)
        return Reference(get("features"), get("present"), get("identity"))

    def _reader(self, index: int, variant: int) -> Any:
        chunk = index // CHUNK
        if chunk not in self._files:
            self._files[chunk] = safe_open(chunk_file(self.folder, chunk), framework="pt")
        return lambda name: self._files[chunk].get_tensor(f"{index}.{variant}.{name}")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "variants": self.variants, "_files": {}}  # open files do not travel


def store_folder(folder: Path, photos: OpenedPhotos, encoders: FrozenEncoders) -> Path:
    """Where the results for these photos, variants and networks are: other ones have another folder."""
    vae = checksum(encoders.base.vae.state_dict())
    encoder: Any = encoders.image_encoder
    network = getattr(encoder, "model", None) or encoder.network
    parts = (photos.dataset.manifest.fingerprint, photos.config, photos.sizes, photos.buckets, photos.quirks)
    made_of = f"{parts} {photos.variants} {vae} {checksum(network.state_dict())}"
    return folder / f"{zlib.crc32(made_of.encode()):08x}"


def chunk_file(folder: Path, chunk: int) -> Path:
    """The file of a chunk."""
    return folder / f"{chunk:06d}.safetensors"


def precompute(folder: Path, photos: OpenedPhotos, encoders: FrozenEncoders, *, chunks: Iterable[int]) -> None:
    """Compute some chunks of a store; those that are there are not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    for chunk in tqdm(list(chunks), desc="latents and features", mininterval=5):
        path = chunk_file(folder, chunk)
        if not path.is_file():
            rows = range(chunk * CHUNK, min(len(photos.dataset), (chunk + 1) * CHUNK))
            with appearing(path) as temporary:
                save_file(_computed(rows, photos, encoders), temporary)


def _computed(rows: Iterable[int], photos: OpenedPhotos, encoders: FrozenEncoders) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index in rows:
        for variant in range(photos.variants):
            target, reference = photos.target(index, variant), photos.reference(index, variant)
            latents = encoders.base.latents(target.content[None])[0].cpu()
            features = encoders.features(reference.content[None], reference.present[None])[0].cpu()
            parts = {**asdict(target), **asdict(reference)}
            del parts["content"]
            parts |= {"latents": latents, "features": features}
            parts = {name: value.half() if value.is_floating_point() else value for name, value in parts.items()}
            parts["identity"] = reference.identity
            tensors |= {f"{index}.{variant}.{name}": value.contiguous() for name, value in parts.items()}
    return tensors


def chunks_of(photos: OpenedPhotos) -> range:
    """The chunks of a whole store."""
    return range(-(-len(photos.dataset) // CHUNK))
