"""Options that several verbs share."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from consistentid.generation.optimisation import Optimisation
from consistentid.trust.safeguards import Safeguards

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Loading:
    """Which model, and how it runs.

    Attributes:
        model: embedded, sd15, sdxl, a folder, a single .safetensors file, or a hub id of a Stable Diffusion pipeline.
        adapter: folder of an identity adapter, a released file, or the hub id of one; embedded, sd15 and sdxl have
            their own.
        device: cpu, cuda, mps, …
        dtype: type of the weights while denoising; auto takes what is fast on the device.
        batch_size: images in one denoising run; the model's preset decides when it is not given.
        offline: never download anything.
        progress: show progress bars.
        base_config: diffusers folder that configures a single file, when it is not plain SD 1.5 or SDXL.
        lora: community LoRA of the base model, FILE or FILE:WEIGHT; give several for several.
        textual_inversion: file of a word for the prompt; give several for several.
        cache: keep conditionings (no photos, but features of faces) in $CONSISTENTID_CACHE or ~/.cache/consistentid.
        optimisation: how the networks are held and run.
        image_encoder: folder or hub id of the adapter's CLIP vision tower, when it is not where the adapter says.
        safeguards: what may be made, and how files are marked; what is not given is as in trust.toml.
    """

    model: str | None = None
    adapter: str | None = None
    device: str | None = None
    dtype: Dtype = "auto"
    batch_size: int | None = None
    offline: bool = False
    progress: bool = True
    base_config: str | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[str, ...] = ()
    cache: bool = True
    optimisation: Annotated[Optimisation, Parameter(name="*")] = Optimisation()
    image_encoder: str | None = None
    safeguards: Annotated[Safeguards, Parameter(name="*")] = field(default_factory=Safeguards)

    @property
    def shows_progress(self) -> bool:
        """Bars are for people: not when stderr goes to a file."""
        return self.progress and sys.stderr.isatty()


@dataclass(frozen=True)
class TaskInputs:
    """Another task than text-to-image, and what it works on.

    Attributes:
        task: text-to-image, img2img, inpaint, controlnet or controlnet-inpaint.
        image: the picture to change, or the control picture of controlnet; img2img and inpaint take the photo itself
            when it is not given.
        mask: what to repaint: face, hair, head, another region, or a picture that is white there.
        mask_feather: width of an automatic mask's soft border, as a share of the picture's shorter side.
        mask_match: give what was repainted within an automatic mask the colours and the grain around it.
        strength: how much is changed, 0 to 1.
        controlnet: folder or hub id of a ControlNet; give several for several.
        control_image: control picture of controlnet-inpaint, or one for each of several ControlNets.
    """

    task: str | None = None
    image: Path | None = None
    mask: str | None = None
    mask_feather: float | None = None
    mask_match: bool = False
    strength: float | None = None
    controlnet: tuple[str, ...] = ()
    control_image: tuple[Path, ...] = ()


@dataclass(frozen=True)
class OtherPhotos:
    """Photos besides the one of the person.

    Attributes:
        parts: photo of who gives a part instead: face, ears, eyes, nose, mouth, or identity, as in --parts.eyes FILE.
        blend_with: photo of a second person, mixed in by --blend.
        same: another photo of the same person; give several for several, which --combine puts together.
        beside: photo of another person in the same picture; give several for several, and --places to say where all
            are, PHOTO's person first.
    """

    parts: dict[str, Path] = field(default_factory=dict)
    blend_with: Path | None = None
    same: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Manner:
    """Ways to make portraits other than one for each seed; at most one of them.

    Attributes:
        morph: make so many portraits, from the person to the second one of --blend-with.
        best_of: draw so many candidates and keep the best: those that look most like the person, obey the prompt and
            have a sharp face.
        into: put the person into this picture, in the place of the largest face; --mask says which part, --strength
            how much of it changes.
        into_face: who is replaced in the picture of --into, said as --face is: largest, left, right, centre, left:1, …
        explain: also write a picture of what every region's word and every identity token was read by, a .png file.
    """

    morph: int | None = None
    best_of: int | None = None
    into: Path | None = None
    into_face: int | str | None = None
    explain: Path | None = None
