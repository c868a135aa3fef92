"""What is asked for and what was done: requests, their settings, and the record written into every portrait."""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from consistentid.errors import InvalidSettings
from consistentid.generation.origin import Origin
from consistentid.identity.control import MAX_WEIGHT, Control
from consistentid.trust.policy import Consent

TEXT_TO_IMAGE = "text-to-image"
_Share = Annotated[float, Field(ge=0, le=1)]
_TEXTS = ("prompt", "negative_prompt", "caption", "facial_prompt", "words")
_PHOTOS = ("photo", "photo_sha256", "analysis_sha256", "donors", "left_out")


class GenerationSettings(BaseModel):
    """Everything of a request but the photo and the prompt. None means: the preset of the model decides.

    Attributes:
        negative_prompt: what to stay away from; without effect when guidance is 1 or less.
        seed: image k of a request is drawn with seed + k, whatever the batch it is made in.
        num_images: portraits of this request.
        steps: denoising steps.
        scheduler: a short name (`ddim`, `euler`, …) or the name of any diffusers scheduler class.
        guidance: classifier-free guidance scale; 1 or less switches it off and halves the work.
        identity_scale: strength of the identity tokens and their LoRAs; 0 is the base model.
        merge_step: last step (from 0) that runs without region features, -1 for none; a float is its share of all
            steps that are run (fewer than `steps` in a task with `strength`), where 0.0 means none.
        size: width, height in pixels.
        regions: the regions that take part, None for all that the photo shows.
        caption: description of the face; None takes the one in the adapter's configuration, else the describer's.
        face: which face of the photo: largest, surest, left, right, centre, largest:1, … (see `FaceAnalyzer.analyze`).
        clip_skip: last layers of the text encoder that are left out; "clip skip 2" of other programs is 1.
        weights: how strongly a part of the photo acts, by part: face, ears, eyes, nose, mouth, or identity for the
            overall identity; from 0 (the text decides) over 1 (as trained, as usual) to 1.5.
        starts: first step in which a part acts, as a share of all steps that are run, by part; without it a region acts
            after the merge step, the identity in all steps.
        ends: the step from which on a part acts no more, likewise.
        words: what the text says of a region instead of the caption, by region: `closed` for eyes, `a laughing mouth`
            for mouth. The region's weight is then low, unless it is given too.
        blend: share of a second person, from 0 to 1; half when only that person's photo is given.
        combine: how several photos of the person become one: average (by their quality), concatenate (every photo gets
            identity tokens of its own), best (the average, but each region from the photo that shows it best).
        places: where each person of a picture of several people is: left, top, right and bottom as shares of the
            canvas, such as `0,0,0.5,1`, or a mask from `places.mask_place` (on the command line and in job files the
            name of its picture, white where the person is). None are given: side by side.
        clauses: what the prompt says of each person of the picture, in the place of its `{person}`, else at its end.
        prompt_weighting: read weights such as `(smiling)1.3` or `smiling++` in both prompts, and (but not with
            released checkpoints) all of a long prompt; needs compel.
        consent: stated when the people in the photos agreed to this use; written into every file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    negative_prompt: str = ""
    seed: int = Field(default=0, ge=0, lt=2**63)
    num_images: int = Field(default=1, ge=1, le=1024)
    steps: int | None = Field(default=None, ge=1, le=1000)
    scheduler: str | None = None
    guidance: float | None = Field(default=None, ge=0, le=100)
    identity_scale: float | None = Field(default=None, ge=0, le=10)
    merge_step: int | float | None = Field(default=None, ge=-1)
    size: tuple[int, int] | None = None
    regions: tuple[str, ...] | None = None
    caption: str | None = None
    face: int | str | None = None
    clip_skip: int = Field(default=0, ge=0)
    weights: dict[str, Annotated[float, Field(ge=0, le=MAX_WEIGHT)]] = Field(default_factory=dict)
    starts: dict[str, _Share] = Field(default_factory=dict)
    ends: dict[str, _Share] = Field(default_factory=dict)
    words: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    blend: float | None = Field(default=None, ge=0, le=1)
    combine: Literal["average", "concatenate", "best"] = "average"
    places: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    prompt_weighting: bool = False
    consent: Consent = "not stated"

    @field_validator("merge_step", mode="before")
    @classmethod
    def _share_or_step(cls, value: object) -> object:
        """From a command line, a number with a point is a share, also 1.0."""
        with suppress(ValueError):
            return float(value) if isinstance(value, str) and "." in value else value
        return value

    @field_validator("places", mode="before")
    @classmethod
    def _boxes_of_numbers(cls, value: object) -> object:
        """A box may also be four numbers."""
        if not isinstance(value, list | tuple):
            return value
        return tuple(",".join(map(str, place)) if isinstance(place, list | tuple) else place for place in value)

    @model_validator(mode="after")
    def _check(self) -> "GenerationSettings":
        if isinstance(self.merge_step, float) and not 0 <= self.merge_step <= 1:
            raise ValueError("merge_step as a share of the steps must be between 0 and 1")
        if self.size is not None and min(self.size) < 8:
            raise ValueError("size must be at least 8 x 8 pixels")
        backwards = [part for part in self.starts if self.starts[part] >= self.ends.get(part, 1)]
        if backwards:
            raise ValueError(f"{backwards[0]} must end after it starts")
        return self

    @property
    def control(self) -> Control:
        """When and how strongly the photo's parts act."""
        return Control(self.weights, self.starts, self.ends)

    @classmethod
    def of(cls, **values: object) -> "GenerationSettings":
        """Validated settings.

        Raises:
            InvalidSettings: a value is out of range, or a name unknown; the message names it.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidSettings(explain(error)) from None


def preset_settings(name: str | Path) -> GenerationSettings:
    """Settings by name (`setting_presets.json`: the release's demos, few-step models) or from a JSON file of your own.

    Raises:
        InvalidSettings: there is no such preset or file, or it holds something else than settings.
    """
    known = json.loads(files("consistentid.generation").joinpath("setting_presets.json").read_text())
    if str(name) in known:
        return GenerationSettings.of(**known[str(name)])
    path = Path(name).expanduser()
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise InvalidSettings(
            f"there is no preset {str(name)!r}; choose from {', '.join(known)}, or a JSON file"
        ) from None
    except ValueError as error:
        raise InvalidSettings(f"{path} is no JSON file of settings ({error})") from None
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} must hold one JSON object of settings")
    return GenerationSettings.of(**values)


class DonorRecord(BaseModel):
    """One of these photos in a portrait's record.

    Attributes:
        role: the part that it gives, `blend` or `same`.
        photo: path, None when it came from memory.
        photo_sha256: of its pixels.
        analysis_sha256: of what the face analysis found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    photo: str | None
    photo_sha256: str
    analysis_sha256: str


class PortraitSettings(Origin, GenerationSettings):
    """Everything needed to make one portrait again, bit for bit on the same machine.

    Attributes:
        prompt: as given, without the caption.
        task: entry of `generation.tasks.TASKS`.
        index: which image of the request this is; it is drawn with seed + index.
        photo: path of the photo, None when it came from memory.
        photo_sha256: of the decoded, upright RGB pixels and their size.
        analysis_sha256: of what the face analysis found.
        donors: the photos of others that gave something.
        left_out: which photos of the person show someone else than the other ones, so that they gave nothing: 0 for
            `photo`, 1 for the first of the donors in the role `same`, 2 for the second, ….
        facial_prompt: prompt and caption as the text encoder read them; those of several people with ` | ` between.
        regions_used: regions that took part, in the order of their words; those of several people one after the other.
        weights_sha256: of every parameter that took part.
        dtype, device, threads: of the denoising run; its arithmetic depends on them.
        batch_size, batch_position: shape of the denoising batch and the portrait's row in it. Rows do not see each
            other, but the order of additions depends on the shape.
        made_here: False when latents or other tensors were handed in that the record does not hold.
        versions: of this package and the libraries below it.
    """

    prompt: str
    task: str = TEXT_TO_IMAGE
    index: int = Field(default=0, ge=0)
    photo: str | None = None
    photo_sha256: str
    analysis_sha256: str
    donors: tuple[DonorRecord, ...] = ()
    left_out: tuple[Annotated[int, Field(ge=0)], ...] = ()
    facial_prompt: str = ""
    regions_used: tuple[str, ...] = ()
    weights_sha256: str
    dtype: str
    device: str
    threads: int = Field(ge=1)
    batch_size: int = Field(default=1, ge=1)
    batch_position: int = Field(default=0, ge=0)
    made_here: bool = True
    versions: dict[str, str] = Field(default_factory=dict)

    def request_settings(self) -> GenerationSettings:
        """The settings of the request this portrait came from."""
        return GenerationSettings(**self.model_dump(include=set(GenerationSettings.model_fields)))

    @property
    def donor_photos(self) -> tuple[tuple[str, str], ...]:
        """Role and pixels' hash of the photos of others."""
        return tuple((donor.role, donor.photo_sha256) for donor in self.donors)

    def public(self, *, texts: bool) -> dict[str, Any]:
        """The record for others: no place on this machine, no hash of a photo.

        Args:
            texts: with prompts, caption and words of regions.
        """
        return self.without_folders().model_dump(mode="json", exclude={*_PHOTOS, *(() if texts else _TEXTS)})

    def matches(self, wanted: Mapping[str, object]) -> bool:
        """Whether this portrait is what a request asks for: every value given there is the one recorded here."""
        return all(getattr(self, name) == value for name, value in wanted.items())


def explain(error: ValidationError) -> str:
    """A pydantic error as one sentence: every wrong key with the reason."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        reason = (
            "is no known setting"
            if problem["type"] == "extra_forbidden"
            else problem["msg"].removeprefix("Value error, ")
        )
        parts.append(f"{where}: {reason}" if where else reason)
    return "; ".join(parts)
