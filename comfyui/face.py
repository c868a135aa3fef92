"""Nodes from photos to faces."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import ORDERS, FaceAnalysis
from consistentid.faces.overlay import draw_analysis
from consistentid.generation.analyses import AnalysedPhoto
from consistentid.generation.donors import Donors, gather
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Face
from consistentid.identity.control import PARTS
from consistentid.images import pixels_sha256

from .sockets import CATEGORY, FACE, LOADED, Loaded

AS_TRAINED = "as trained"
_COMBINATIONS = ("average", "concatenate", "best")


class AnalyseFace:
    """Finds one face in a photo."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Finds a face, recognises it, and tells its regions apart. The preview shows what was found."
    RETURN_TYPES = (FACE, "IMAGE", "STRING")
    RETURN_NAMES = ("face", "preview", "caption")
    OUTPUT_TOOLTIPS = (
        "The analysed face.",
        "The photo with its regions tinted, the face's box and landmarks.",
        "The describer's words for the face; empty where the adapter has a fixed caption.",
    )
    FUNCTION = "analyse"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """A photo and which of its faces."""
        return {
            "required": {
                "consistentid": (LOADED, {"tooltip": "From Load ConsistentID."}),
                "image": ("IMAGE", {"tooltip": "One photo. Several of one person are joined by Mix Faces."}),
                "face": (
                    [AS_TRAINED, *ORDERS],
                    {"tooltip": "Which face, when there are several; released weights took the surest."},
                ),
                "place": ("INT", {"default": 0, "min": 0, "max": 99, "tooltip": "Its place in that order, from 0."}),
            },
        }

    def analyse(
        self, consistentid: Loaded, image: Float[Tensor, "b h w 3"], face: str, place: int
    ) -> tuple[FaceAnalysis, Float[Tensor, "1 h w 3"], str]:
        """Analyse a photo.

        Raises:
            InvalidSettings: several photos were given, or the adapter's face models are not there.
            NoFaceFound, FaceNotSelected: the photo cannot be used.
        """
        if len(image) != 1:
            raise InvalidSettings(f"{len(image)} images were given; analyse one photo at a time and join them by Mix")
        order = consistentid.adapter.config.quirks.face if face == AS_TRAINED else face
        pixels = (image[0].cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
        found = consistentid.analyses.of(pixels, GenerationSettings(face=f"{order}:{place}")).analysis
        preview = torch.from_numpy(np.asarray(draw_analysis(found), np.float32) / 255)[None]
        return found, preview, found.description or ""


class MixFaces:
    """Makes one face of several."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Regions from other photos, a blend of two people, or several photos of one person."
    RETURN_TYPES = (FACE,)
    RETURN_NAMES = ("face",)
    OUTPUT_TOOLTIPS = ("The mixed face; it stands where an analysed one does.",)
    FUNCTION = "mix"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """The person, and what others give."""
        of = {part: "the overall identity" if part == "identity" else f"the region `{part}`" for part in PARTS}
        return {
            "required": {
                "face": (FACE, {"tooltip": "The person; gives all that nobody else does."}),
                "share": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "Share of the second person, where one is connected.",
                    },
                ),
                "combine": (
                    list(_COMBINATIONS),
                    {
                        "tooltip": "How several photos of the person become one: average (by quality), concatenate "
                        "(identity tokens of each), best (the average, but each region from the photo that shows it "
                        "best)."
                    },
                ),
            },
            "optional": {
                "second_photo": (FACE, {"tooltip": "Another photo of the person."}),
                "third_photo": (FACE, {"tooltip": "Another photo of the person."}),
                "second_person": (FACE, {"tooltip": "Somebody who is blended in by `share`."}),
                **{f"{part}_of": (FACE, {"tooltip": f"Who gives {text}."}) for part, text in of.items()},
            },
        }

    def mix(
        self,
        face: FaceAnalysis,
        share: float,
        combine: str,
        second_photo: FaceAnalysis | None = None,
        third_photo: FaceAnalysis | None = None,
        second_person: FaceAnalysis | None = None,
        **givers: FaceAnalysis,
    ) -> tuple[Face]:
        """Mix a face.

        Raises:
            InvalidSettings: a mixed face was given, or the choices contradict each other.
        """
        same = tuple(photo for photo in (second_photo, third_photo) if photo is not None)
        parts = {name.removesuffix("_of"): giver for name, giver in givers.items()}
        settings = GenerationSettings.of(combine=combine, blend=None if second_person is None else share)
        return (gather(_analysed(face), Donors(parts, second_person, same), settings, analyse=_analysed).face,)


def _analysed(face: Any) -> AnalysedPhoto:
    if not isinstance(face, FaceAnalysis):
        raise InvalidSettings("a mixed face cannot be mixed again; connect all faces to one Mix Faces")
    return AnalysedPhoto(face, None, pixels_sha256(face.photo))
