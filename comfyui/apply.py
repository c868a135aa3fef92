"""The node that puts a person into a MODEL and its conditionings."""

from typing import Any

from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Face

from .prompt import CAPTION, PROMPT, embeddings_of, settings_of
from .sockets import CATEGORY, CONTROL, FACE, LOADED, Loaded
from .steps import Reading
from .unet import attach

_AS_TRAINED = -1.0


class ApplyConsistentID:
    """MODEL, CLIP, face and prompt -> MODEL and conditionings, for any sampler of ComfyUI."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Puts a person into a checkpoint. Connect the MODEL and both conditionings to a sampler; ControlNets, LoRAs, "
        "areas, masks and time ranges go between as usual. Several people: apply once for each, one MODEL through "
        "all, and combine their conditionings."
    )
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("model", "positive", "negative")
    OUTPUT_TOOLTIPS = (
        "The checkpoint with the adapter; the given one stays as it is.",
        "The facial prompt and the person.",
        "The negative prompt and nobody.",
    )
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """A checkpoint, a face and what to make of it."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "Of an SD 1.5 or SDXL checkpoint, with LoRAs if you like."}),
                "clip": ("CLIP", {"tooltip": "Of the same checkpoint."}),
                "consistentid": (LOADED, {"tooltip": "From Load ConsistentID."}),
                "face": (FACE, {"tooltip": "From Analyse Face or Mix Faces."}),
                "prompt": PROMPT,
                "negative_prompt": (
                    "STRING",
                    {"multiline": True, "default": "", "tooltip": "What to stay away from."},
                ),
                "identity_scale": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 10.0,
                        "step": 0.05,
                        "tooltip": "Strength of the identity tokens; at 0 their LoRAs are off as well.",
                    },
                ),
                "merge": (
                    "FLOAT",
                    {
                        "default": _AS_TRAINED,
                        "min": _AS_TRAINED,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "Share of the sampler's steps that run without the regions, which leaves the "
                        "layout to the prompt. -1: as the adapter was trained (released weights: 0.6), 0: none.",
                    },
                ),
            },
            "optional": {"caption": CAPTION, "control": (CONTROL, {"tooltip": "From Region Weight."})},
        }

    def apply(
        self,
        model: Any,
        clip: Any,
        consistentid: Loaded,
        face: Face,
        prompt: str,
        negative_prompt: str,
        identity_scale: float,
        merge: float,
        caption: str = "",
        control: GenerationSettings | None = None,
    ) -> tuple[Any, list[Any], list[Any]]:
        """Attach the adapter and make both conditionings.

        Raises:
            ConsistentIDError: as in `attach` and `embeddings_of`.
        """
        patched = attach(model, consistentid.adapter, scale=identity_scale)
        settings = settings_of(control, caption=caption, negative=negative_prompt)
        embeddings = embeddings_of(consistentid, clip, face, prompt, settings)
        config = consistentid.adapter.config
        if merge >= 0:
            config = config.model_copy(update={"merge_fraction": merge})
        texts = embeddings.conditioning.prompt_embeds, embeddings.conditioning.negative_embeds
        positive, negative = (
            Reading(embeddings, settings.control, config, guidance=guidance, text=text).conditioning()
            for guidance, text in zip((False, True), texts, strict=True)
        )
        return patched, positive, negative
