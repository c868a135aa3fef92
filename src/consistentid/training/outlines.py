"""Regions of predicted pictures in the outlines that the face parser gives them, with gradients."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import SegformerForSemanticSegmentation

from consistentid.faces.parsing import IMAGE_MEAN, IMAGE_STD, with_position
from consistentid.faces.region_frame import FRAME_SIZE, FRAME_ZOOM, MARGIN, OWN_LABELS, SMALLEST
from consistentid.faces.regions import LABEL_NAMES, REGION_NAMES
from consistentid.training.face_chips import cut_out, upright, zoomed

_SHARPNESS = 6.0  # of the mask's edge; the parser's own probabilities fade slowly


@dataclass(frozen=True)
class Outlines:
    """What FGIS makes of a picture (`fgis.region_crops`), of which no label map is known.

    Attributes:
        parser: the embedded one, frozen; its config says how it sees a face.
    """

    parser: SegformerForSemanticSegmentation

    def chips(
        self,
        pictures: Float[Tensor, "b 3 s s"],
        landmarks: Float[Tensor, "b 5 2"],
        rows: Int[Tensor, " k"],
        regions: Int[Tensor, " k"],
        jitter: Float[Tensor, "k 3"],
    ) -> tuple[Float[Tensor, "k 3 150 150"], Bool[Tensor, " k"]]:
        """Regions of pictures, black outside their outlines, and whether the parser sees them.

        Args:
            pictures: in 0..1; each is parsed once.
            landmarks: in their pixels.
            rows: of which picture.
            regions: which of its regions.
            jitter: see `aligned_chips`.
        """
        frames = upright(pictures, landmarks, FRAME_SIZE, zoom=FRAME_ZOOM)[rows]
        masks = self._masks(pictures, landmarks)[rows, regions]
        squares, seen = squares_around(masks.detach() > 0.5)
        return cut_out(frames * masks[:, None], squares, jitter), seen

    def _masks(self, pictures: Float[Tensor, "b 3 s s"], landmarks: Float[Tensor, "b 5 2"]) -> Float[Tensor, "b r f f"]:
        """Which places of the frame belong to each region, 0 or 1; gradients are those of soft edges."""
        config = self.parser.config
        views = upright(pictures, landmarks, config.face_size, zoom=config.face_zoom)
        mean, std = (views.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        with torch.autocast(views.device.type, enabled=False):  # rounding moves edges
            logits = self.parser(pixel_values=with_position((views - mean) / std)).logits
        shares = zoomed(logits, FRAME_SIZE, by=FRAME_ZOOM / config.face_zoom).softmax(1)
        lead = torch.stack([shares[:, own].amax(1) - shares[:, ~own].amax(1) for own in _own_labels()], 1)
        soft, hard = torch.sigmoid(_SHARPNESS * lead), (lead > 0).float()
        return hard + (soft - soft.detach())


def _own_labels() -> Bool[Tensor, "r k"]:
    """Which labels belong to which region."""
    table = torch.zeros(len(REGION_NAMES), len(LABEL_NAMES), dtype=torch.bool)
    for row, name in zip(table, REGION_NAMES, strict=True):
        row[list(OWN_LABELS[name])] = True
    return table


def squares_around(masks: Bool[Tensor, "b v v"]) -> tuple[Float[Tensor, "b 3"], Bool[Tensor, " b"]]:
    """The square around each mask: its middle, across and down, and half its side, where the view goes from -1 to 1.

    Of a mask of next to nothing, it is the whole view, and it does not count as seen.
    """
    seen = masks.sum((1, 2)) >= SMALLEST
    edges = torch.stack([torch.stack(_ends(masks.any(axis)), 1) for axis in (1, 2)], 1) * (2 / masks.shape[-1]) - 1
    middles, halves = edges.mean(2), MARGIN * (edges[..., 1] - edges[..., 0]).amax(1) / 2
    whole = torch.tensor([0.0, 0.0, 1.0], device=masks.device)
    return torch.where(seen[:, None], torch.cat([middles, halves[:, None]], 1), whole), seen


def _ends(line: Bool[Tensor, "b v"]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """The first place that is set, and the one behind the last."""
    places = line.int()
    return places.argmax(1), line.shape[1] - places.flip(1).argmax(1)
