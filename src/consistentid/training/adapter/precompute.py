"""Latents and image features computed once: more than half of a step on a large base model."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from consistentid.dataset.files import appearing
from consistentid.identity.checksum import checksum
from consistentid.training.adapter.photos import OpenedPhotos, Reference, Target
from consistentid.training.adapter.task import FrozenEncoders

CHUNK = 64  # records of a file


@dataclass(frozen=True)
class PrecomputedPhotos:
    """Targets and references whose latents and features were computed before.

    Attributes:
        folder: of a `Store`.
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


@dataclass(frozen=True)
class Store:
    """The results for a dataset's photos; other photos, variants or networks have another folder.

    Attributes:
        root: folder of all stores.
        photos: in as many variants as are stored.
        encoders: do the work.
    """

    root: Path
    photos: OpenedPhotos
    encoders: FrozenEncoders

    @cached_property
    def folder(self) -> Path:
        """Where the files are."""
        photos, encoder = self.photos, cast("Any", self.encoders.image_encoder)
        network = getattr(encoder, "model", None) or encoder.network
        parts = (photos.dataset.manifest.fingerprint, photos.config, photos.sizes, photos.buckets, photos.quirks)
        weights = checksum(self.encoders.base.vae.state_dict()) + checksum(network.state_dict())
        return self.root / f"{zlib.crc32(f'{parts} {photos.variants} {weights}'.encode()):08x}"

    @property
    def missing(self) -> list[int]:
        """Chunks that are not computed yet."""
        chunks = range(-(-len(self.photos.dataset) // CHUNK))
        return [chunk for chunk in chunks if not chunk_file(self.folder, chunk).is_file()]

    @property
    def results(self) -> PrecomputedPhotos:
        """To read them."""
        return PrecomputedPhotos(self.folder, self.photos.variants)

    def compute(self, chunk: int) -> int:
        """Compute a chunk if it is not there, and return its number of photos."""
        rows = range(chunk * CHUNK, min(len(self.photos.dataset), (chunk + 1) * CHUNK))
        path = chunk_file(self.folder, chunk)
        if not path.is_file():
            with appearing(path) as temporary:
                save_file({key: value for row in rows for key, value in self._computed(row)}, temporary)
        return len(rows)

    def _computed(self, row: int) -> Iterator[tuple[str, Tensor]]:
        for variant in range(self.photos.variants):
            target, reference = self.photos.target(row, variant), self.photos.reference(row, variant)
            features = self.encoders.features(reference.content[None], reference.present[None])[0]
            halves = {
                "latents": self.encoders.base.latents(target.content[None])[0],
                "features": features,
                "regions": target.regions,
                "foreground": target.foreground,
            }
            yield from ((f"{row}.{variant}.{name}", value.half().cpu().contiguous()) for name, value in halves.items())
            for name, value in (
                ("place", target.place),
                ("present", reference.present),
                ("identity", reference.identity),
            ):
                yield f"{row}.{variant}.{name}", value


def chunk_file(folder: Path, chunk: int) -> Path:
    """The file of a chunk."""
    return folder / f"{chunk:06d}.safetensors"
