"""The node that says how one part of the photo acts."""

from typing import Any

from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.control import MAX_WEIGHT, PARTS, check_parts

from .sockets import CATEGORY, CONTROL

_USUAL = -1.0  # of a start


class RegionWeight:
    """Weight, words and schedule of one part; several are chained."""

    CATEGORY = CATEGORY
    DESCRIPTION = "How strongly one part of the photo acts, in which steps, and what the text says of it."
    RETURN_TYPES = (CONTROL,)
    RETURN_NAMES = ("control",)
    OUTPUT_TOOLTIPS = ("For Apply ConsistentID, or for the next Region Weight.",)
    FUNCTION = "weigh"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """One part of the photo."""
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "part": (list(PARTS), {"tooltip": "A region of the face, or `identity`: the overall identity."}),
                "weight": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": MAX_WEIGHT,
                        "step": 0.05,
                        "tooltip": "0: the text decides, 1: as trained, more exaggerates.",
                    },
                ),
                "start": (
                    "FLOAT",
                    {
                        **share,
                        "min": _USUAL,
                        "default": _USUAL,
                        "tooltip": "First step in which it acts, as a share of all steps. -1: regions after the merge "
                        "step, the identity at once.",
                    },
                ),
                "end": ("FLOAT", {**share, "default": 1.0, "tooltip": "The step from which on it acts no more."}),
                "words": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "What the text says of the region instead of the caption, such as `closed` for "
                        "eyes. The photo then has a weight of 0.25, unless `weight` is not 1.",
                    },
                ),
            },
            "optional": {"control": (CONTROL, {"tooltip": "Of other parts."})},
        }

    def weigh(
        self,
        part: str,
        weight: float,
        start: float,
        end: float,
        words: str,
        control: GenerationSettings | None = None,
    ) -> tuple[GenerationSettings]:
        """Add one part to a control.

        Raises:
            InvalidSettings: a value is out of range, the part ends before it starts, or the identity was given words.
        """
        before = control or GenerationSettings()
        said = words.strip()
        changes: dict[str, tuple[Any, bool]] = {
            "weights": (weight, weight != 1),
            "starts": (start, start >= 0),
            "ends": (end, end < 1),
            "words": (said, bool(said)),
        }
        values = {
            name: {**getattr(before, name), **({part: value} if given else {})}
            for name, (value, given) in changes.items()
        }
        check_parts(values["words"], known=REGION_NAMES)
        return (GenerationSettings.of(**values),)
