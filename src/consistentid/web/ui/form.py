"""What the page's controls say, and the request that they stand for."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import ValidationError

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.presets import PRESETS
from consistentid.generation.settings import TEXT_TO_IMAGE, GenerationSettings, PortraitSettings, explain
from consistentid.identity.control import IDENTITY, PARTS
from consistentid.web.jobs import PortraitRequest

BY_PART = ("weights", "words", "starts", "ends")
_OF_OTHERS = ("blend", "combine", "clauses")  # said by `Others`


@dataclass(frozen=True)
class Form:
    """Values of the controls.

    Attributes:
        prompt, negative_prompt, caption, seed, num_images, steps, guidance, identity_scale: as in `PortraitRequest`.
        text_share: share of the steps before the photo's regions take part.
        used: regions that are switched on.
        weights: of every part.
        words: said of a region instead of what the photo shows of it; empty: nothing.
        starts, ends: when every part acts, as shares of the steps, as they were typed; empty: as usual.
        consent: whether the people in the photo agreed.
    """

    prompt: str = ""
    negative_prompt: str = ""
    caption: str = ""
    seed: int = 0
    num_images: int = 1
    steps: int = 30
    guidance: float = 1.5
    identity_scale: float = 1.0
    text_share: float = 0.1
    used: tuple[str, ...] = REGION_NAMES
    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 1.0))
    words: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(REGION_NAMES, ""))
    starts: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PARTS, ""))
    ends: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PARTS, ""))
    consent: bool = False

    @classmethod
    def usual(cls, generator: PortraitGenerator) -> Self:
        """What the model does when nothing is asked for."""
        config = generator.adapter.config
        preset = PRESETS[config.base]
        return cls(
            steps=preset.steps,
            guidance=preset.guidance,
            identity_scale=config.identity_scale,
            text_share=config.merge_fraction,
        )

    def request(self, *, usual: Self, found: str | None, kept: Mapping[str, object]) -> PortraitRequest:
        """The request; what is as usual is left open, so that the record says what was chosen.

        Args:
            usual: the model's values.
            found: caption of the analysis.
            kept: settings that these controls do not say.

        Raises:
            InvalidSettings: there is no prompt, or a value is out of range.
        """
        if not self.prompt.strip():
            raise InvalidSettings("say in a few words what the portrait should show, or choose an example")
        if not self.used and not self.weights[IDENTITY]:
            raise InvalidSettings("the whole person is switched off; switch on a region, or raise the overall identity")
        numbers = {
            "steps": (self.steps, usual.steps),
            "guidance": (self.guidance, usual.guidance),
            "identity_scale": (self.identity_scale, usual.identity_scale),
            "merge_step": (float(self.text_share), float(usual.text_share)),
        }
        chosen: dict[str, object] = {name: value for name, (value, normal) in numbers.items() if value != normal}
        if set(self.used) != set(REGION_NAMES):
            chosen["regions"] = tuple(name for name in REGION_NAMES if name in self.used)
        chosen |= self._control()
        if self.caption.strip() and self.caption != found:
            chosen["caption"] = self.caption
        if self.negative_prompt:
            chosen["negative_prompt"] = self.negative_prompt
        if self.consent:
            chosen["consent"] = "stated"
        chosen |= {"prompt": self.prompt, "seed": self.seed, "num_images": self.num_images}
        try:
            return PortraitRequest.model_validate({**kept, **chosen})
        except ValidationError as error:
            raise InvalidSettings(explain(error)) from None

    def _control(self) -> dict[str, object]:
        """How each part acts, where that is not as usual."""
        words = {region: text.strip() for region, text in self.words.items() if text.strip()}
        acting = {*self.used, *words, IDENTITY}
        values: dict[str, dict[str, Any]] = {
            "weights": {part: value for part, value in self.weights.items() if value != 1 and part in acting},
            "words": words,
            "starts": {
                part: _share(text, part) for part, text in self.starts.items() if text.strip() and part in acting
            },
            "ends": {part: _share(text, part) for part, text in self.ends.items() if text.strip() and part in acting},
        }
        return {name: value for name, value in values.items() if value}

    def restored(self, prompt: str, settings: GenerationSettings) -> "tuple[Form, dict[str, object]]":
        """The form with a request's settings, and those that the page has no control for.

        Args:
            prompt: of the request.
            settings: of the request; what they leave open is as in this form.
        """
        values = settings.model_dump(exclude_unset=True)
        form = replace(self, prompt=prompt, used=settings.regions or REGION_NAMES)
        control: dict[str, Any] = {name: {**getattr(self, name), **getattr(settings, name)} for name in BY_PART}
        for name in ("starts", "ends"):
            control[name] = {part: str(value) for part, value in control[name].items()}
        form = replace(form, **control, caption=settings.caption or "")
        simple = ("negative_prompt", "seed", "num_images", "steps", "guidance", "identity_scale")
        form = replace(form, **{name: values[name] for name in simple if values.get(name) is not None})
        merge = settings.merge_step
        if isinstance(merge, int):
            merge = max(0.0, merge / form.steps)
        if merge is not None:
            form = replace(form, text_share=merge)
        own = {*simple, *BY_PART, *_OF_OTHERS, "prompt", "caption", "regions", "merge_step", "face", "consent"}
        usual = GenerationSettings().model_dump()
        kept = {name: value for name, value in values.items() if name not in own and value != usual[name]}
        return form, kept


def _share(text: str, part: str) -> float:
    with suppress(ValueError):
        return float(text.strip().replace(",", "."))
    raise InvalidSettings(f"“from” and “to” of {part} must be numbers from 0 to 1, or empty")


def settings_of(record: PortraitSettings) -> GenerationSettings:
    """The settings that make one portrait of a record alone."""
    settings = record.request_settings().model_copy(update={"seed": record.seed + record.index, "num_images": 1})
    if record.task != TEXT_TO_IMAGE:  # it counts the steps that were run, which are fewer
        settings = settings.model_copy(update={"merge_step": None})
    return settings
