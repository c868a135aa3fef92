"""The facial prompt as ComfyUI's nodes make it, and the node that shows it."""

from contextlib import nullcontext
from typing import Any

from consistentid.errors import InvalidPrompt
from consistentid.generation.embeddings import Embeddings, embed
from consistentid.generation.resolve import with_control
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.shown import check_shown
from consistentid.identity.conditioner import Face
from consistentid.prompting.facial_prompt import FacialPrompt
from consistentid.prompting.style import MARKER
from consistentid.trust.policy import Asked, PromptPolicy

from .sockets import CATEGORY, CONTROL, FACE, LOADED, Loaded
from .text import conditioner_of

PROMPT = (
    "STRING",
    {
        "multiline": True,
        "dynamicPrompts": True,
        "default": "portrait of a person, cinematic light",
        "tooltip": "What the portrait shall show; (word:1.2) and embedding:name work. The words of the face are added.",
    },
)
CAPTION = (
    "STRING",
    {
        "multiline": True,
        "default": "",
        "tooltip": "What the text says of the face, with a word for every region; empty: as the adapter was trained.",
    },
)


class FacialPromptText:
    """Shows the text that the text encoder reads, with the word of every region marked."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Shows what Apply ConsistentID writes: prompt and caption, with the word of every region marked."
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("marked", "text")
    OUTPUT_TOOLTIPS = (
        "The facial prompt, each marked word followed by its region; `cut off` where the text is too long.",
        "The same without marks.",
    )
    FUNCTION = "show"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 ComfyUI's name
        """As those of Apply ConsistentID that make the text."""
        return {
            "required": {
                "consistentid": (LOADED, {"tooltip": "From Load ConsistentID."}),
                "clip": ("CLIP", {"tooltip": "Of the checkpoint."}),
                "face": (FACE, {"tooltip": "From Analyse Face or Mix Faces."}),
                "prompt": PROMPT,
            },
            "optional": {"caption": CAPTION, "control": (CONTROL, {"tooltip": "From Region Weight: its words count."})},
        }

    def show(
        self,
        consistentid: Loaded,
        clip: Any,
        face: Face,
        prompt: str,
        caption: str = "",
        control: GenerationSettings | None = None,
    ) -> tuple[str, str]:
        """Compose the facial prompt.

        Raises:
            ConsistentIDError: as in `embeddings_of`.
        """
        settings = settings_of(control, caption=caption)
        facial = embeddings_of(consistentid, clip, face, prompt, settings).conditioning.facial_prompt
        return marked(facial), facial.text.replace(f" {MARKER}", "").replace(MARKER, "")


def settings_of(control: GenerationSettings | None, *, caption: str, negative: str = "") -> GenerationSettings:
    """The settings of a request, with the control of its regions.

    Raises:
        InvalidPrompt: the caption or a region's words have weights of their own.
    """
    given = control or GenerationSettings()
    for text in (caption, *given.words.values()):
        if "(" in text or ")" in text:
            raise InvalidPrompt(f"{text!r} has brackets; weights belong into the prompt, and into Region Weight")
    return with_control(given.model_copy(update={"caption": caption.strip() or None, "negative_prompt": negative}))


def embeddings_of(loaded: Loaded, clip: Any, face: Face, prompt: str, settings: GenerationSettings) -> Embeddings:
    """Everything that depends on face and prompt.

    Raises:
        PromptRefused: the policy does not accept a text.
        InvalidSettings: face, CLIP, adapter and regions do not fit each other.
        InvalidPrompt: the prompt or the caption cannot be used.
    """
    PromptPolicy().check(Asked(prompt, wordings=(settings.caption or "", *settings.words.values())))
    conditioner = conditioner_of(loaded, clip)
    found = embed(face, prompt, settings, pipeline=None, conditioner=conditioner, idle=nullcontext())
    check_shown(face, found, settings, conditioner=conditioner)
    return found


def marked(prompt: FacialPrompt) -> str:
    """The text with the region behind each marked word, instead of the package's marker."""
    first, *others = prompt.text.split(MARKER)
    names = [name if name in prompt.regions else f"{name}: cut off" for name in prompt.marked_regions]
    return first + "".join(f"[{name}]{piece}" for name, piece in zip(names, others, strict=True))
