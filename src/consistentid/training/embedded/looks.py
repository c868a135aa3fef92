"""How the regions of every training photo look to FGIS's embedder when the autoencoder draws them."""

import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.samples import Looks
from consistentid.dataset.selection import Selection
from consistentid.devices import is_fast_in_bfloat16
from consistentid.faces.crops import Square, align_face, mirror_landmarks
from consistentid.faces.region_frame import FRAME_ZOOM, OWN_LABELS, PAIRS, sides
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.latents import weights_crc
from consistentid.training.embedded.store import SIZE, open_portrait, save_tensors
from consistentid.training.face_chips import region_box
from consistentid.training.recognition import Recognition

SIDES = 2  # as the photo is, and mirrored
_FORMAT = 4  # raise it when looks are measured in another way: what is in the folder then counts no more
_AROUND = 1.4  # side of the square around one of a pair / of its box
_SMALLEST = 4  # px of a region
_BATCH = 32


@dataclass(frozen=True)
class RegionLooks:
    """Of n photos, each as it is and mirrored.

    Attributes:
        embeddings: of each region in its box and in its outline, zero where there is none.
        boxes: around each region.
        known: whether there is one.
    """

    embeddings: Float[Tensor, "n 2 r 2 k"]
    boxes: Float[Tensor, "n 2 r 4"]
    known: Bool[Tensor, "n 2 r"]

    @cached_property
    def spread(self) -> Float[Tensor, "r 2"]:
        """Mean of 1 less the cosine between each photo's region and its mean over photos, in boxes and in outlines."""
        embeddings, known = self.embeddings.flatten(0, 1).float(), self.known.flatten(0, 1).float()
        count = known.sum(0)[:, None]
        usual = torch.einsum("nrvk,nr->rvk", embeddings, known) / count[..., None]
        return torch.einsum("nrv,nr->rv", 1 - F.cosine_similarity(embeddings, usual, dim=3), known) / count

    def of(self, photos: Int[Tensor, "b r"], sides: Int[Tensor, " b"]) -> Looks:
        """The looks of regions that may come from several photos; side 1 is mirrored."""
        which = photos, sides[:, None], torch.arange(len(REGION_NAMES))
        return Looks(self.embeddings[which].float(), self.boxes[which], self.known[which])


def looks_of(
    records: Selection, latents: Float[Tensor, "n v c h w"], recognition: Recognition, *, folder: Path
) -> RegionLooks:
    """Looks of all records, kept in a folder for these latents of theirs and this decoder."""
    latents = latents[:, :SIDES]
    checksum = weights_crc(recognition.autoencoder.decoder, zlib.crc32(latents.contiguous().numpy().data))
    path = folder / f"looks{_FORMAT}-{checksum:08x}.safetensors"
    if not path.is_file():
        boxes = torch.stack([region_boxes(record) for record in records])
        found = measured_looks(boxes, latents, recognition)
        save_tensors({one.name: getattr(found, one.name) for one in fields(found)}, path)
    return RegionLooks(**load_file(path))


def region_boxes(record: FGIDRecord) -> Float[Tensor, "2 r 4"]:
    """Boxes around the regions of a photo and of its mirrored image; not a number where there is none."""
    square = Square.on_face(np.array(record.landmarks))
    portrait, landmarks = open_portrait(record, square, SIZE), square.points(np.array(record.landmarks), SIZE)
    sides = (portrait, landmarks), (portrait.mirrored(), mirror_landmarks(landmarks, SIZE))
    return torch.stack([boxes_of(side.label_map, points) for side, points in sides])


def boxes_of(label_map: UInt8[np.ndarray, "s s"], landmarks: Float[np.ndarray, "5 2"]) -> Float[Tensor, "r 4"]:
    """Boxes around all regions, in the frame of FGIS; not a number where there is none.

    Of eyes and ears it is a square around the larger one and its surroundings: in a box around both, they are a few
    pixels, and where its edges lie decides the comparison.
    """
    frame = np.asarray(align_face(Image.fromarray(label_map), landmarks, SIZE, zoom=FRAME_ZOOM, nearest=True))
    return torch.from_numpy(np.stack([_box(np.isin(frame, OWN_LABELS[name]), name) for name in REGION_NAMES])).float()


def _box(mask: Bool[np.ndarray, "s s"], name: str) -> Float[np.ndarray, " 4"]:
    if name in PAIRS:
        mask = max(sides(mask), key=np.count_nonzero)
    if np.count_nonzero(mask) < _SMALLEST:
        return np.full(4, np.nan)
    box = region_box(mask)
    return np.concatenate([box[:2], np.full(2, _AROUND * box[2:].max())]) if name in PAIRS else box


@torch.no_grad()
def measured_looks(
    boxes: Float[Tensor, "n 2 r 4"], latents: Float[Tensor, "n 2 c h w"], recognition: Recognition
) -> RegionLooks:
    """How the regions look in what the latents show, in these boxes and in the parser's outlines."""
    pairs = zip(boxes.flatten(0, 1).split(_BATCH), latents.flatten(0, 1).split(_BATCH), strict=True)
    found, known = zip(*(_embedded(*pair, recognition) for pair in pairs), strict=True)
    embeddings, known = (torch.cat(part).unflatten(0, (-1, SIDES)) for part in (found, known))
    return RegionLooks(embeddings, boxes.nan_to_num(), known)


def _embedded(
    boxes: Float[Tensor, "b r 4"], latents: Float[Tensor, "b c h w"], recognition: Recognition
) -> tuple[Float[Tensor, "b r 2 k"], Bool[Tensor, "b r"]]:
    """Embeddings, and which regions both have a box and are seen by the parser."""
    rows, regions = torch.nonzero(~boxes.isnan().any(2), as_tuple=True)
    still = torch.zeros(len(rows), 3)
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=is_fast_in_bfloat16(latents.device)):
        pictures = recognition.pictures(latents.float())
        boxed = recognition.boxed_embeddings(pictures[rows], boxes[rows, regions], still)
        outlined, seen = recognition.outlined_embeddings(pictures, rows, regions, still)
    embeddings = torch.zeros(*boxes.shape[:2], 2, boxed.shape[1], dtype=torch.float16)
    known = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    embeddings[rows, regions] = (torch.stack([boxed, outlined], 1) * seen[:, None, None]).half()
    known[rows, regions] = seen
    return embeddings, known
