"""How a facial prompt is worded: the styles that weights were trained with, as data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from consistentid.errors import InvalidSettings

MARKER = "<|facial|>"  # stands behind a marked word in texts; never reaches a text encoder


class FacialPromptStyle(BaseModel):
    """Wording, order and cutting of a facial prompt.

    Attributes:
        name: key in `STYLES`.
        template: the caption that is used when no describer is asked.
        inpaint_template: the same for inpainting; None: no other one.
        joined: prompt and caption together, when they fit.
        joined_long: the same when they do not fit; None: shorten the caption instead.
        marking: "clauses" keeps the caption's order and its clauses without a region; "release" repeats what the
            released checkpoints were trained with.
        words: the regions that are marked: all of them, so that the text does not depend on what the photo shows, or
            (release) only those with an image.
        max_caption: longer captions (in characters) are dropped; None: any length is taken and shortened.
        length: tokens of the text encoder's context; None: texts are neither cut nor padded.
        always_end: whether a cut text still ends with the end token; the release did not.
        text_only: the text before the merge step.
        mark_all_streams: whether every tokenizer knows the marker; the release added it to SDXL's first only, so in
            the second it stays as ordinary text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    template: str
    inpaint_template: str | None = None
    joined: str
    joined_long: str | None = None
    marking: Literal["clauses", "release"]
    words: Literal["all", "with_image"] = "all"
    max_caption: int | None = Field(None, gt=0)
    length: int | None = Field(77, gt=2)
    always_end: bool = True
    text_only: Literal["with_caption", "prompt"] = "with_caption"
    mark_all_streams: bool = True


ALIGNED = FacialPromptStyle(
    name="aligned",
    template="The person has one face, two ears, two eyes, one nose, and one mouth.",
    joined="{prompt}, {caption}",
    marking="clauses",
)
OFFICIAL_SD15 = FacialPromptStyle(
    name="official_sd15",
    template="The person has one face, one nose, two eyes, two ears, and one mouth.",
    inpaint_template="The person has one nose, two eyes, two ears, and a mouth.",
    joined="{prompt}Detail:{caption}",
    joined_long="Detail:{caption} Caption:{prompt}",
    marking="release",
    words="with_image",
    max_caption=330,
    always_end=False,
)
OFFICIAL_SDXL = OFFICIAL_SD15.model_copy(
    update={
        "name": "official_sdxl",
        "template": "The person has one face, one nose, two eyes, two ears, and a mouth.",
        "inpaint_template": None,
        "joined": "{prompt}; Detail:{caption}",
        "joined_long": "; Detail:{caption} Caption:{prompt}",
        "text_only": "prompt",
        "mark_all_streams": False,
    }
)
STYLES = {style.name: style for style in (ALIGNED, OFFICIAL_SD15, OFFICIAL_SDXL)}


def style_named(name: str) -> FacialPromptStyle:
    """The style of a name.

    Raises:
        InvalidSettings: there is none of that name.
    """
    if name not in STYLES:
        raise InvalidSettings(f"unknown facial-prompt style {name!r}; choose from {', '.join(STYLES)}")
    return STYLES[name]
