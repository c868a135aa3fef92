"""What the page's controls say, and the request that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from pydantic import ValidationError

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.presets import PRESETS
from consistentid.generation.settings import GenerationSettings, PortraitSettings, explain
from consistentid.identity.control import IDENTITY, PARTS
from consistentid.web.jobs import PortraitRequest


@dataclass(frozen=True)
class Form:
    """Values of the controls.

    Attributes:
        prompt, negative_prompt, caption, seed, num_images, steps, guidance, identity_scale: as in `PortraitRequest`.
        text_share: share of the steps before the photo's regions take part.
        used: regions that are switched on.
        weights: of every part.
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
            kept: settings that the page has no control for.

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
        weights = {part: value for part, value in self.weights.items() if value != 1 and part in (*self.used, IDENTITY)}
        if weights:
            chosen["weights"] = weights
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

    def restored(self, prompt: str, settings: GenerationSettings) -> "tuple[Form, dict[str, object]]":
        """The form with a request's settings, and those that it has no control for.

        Args:
            prompt: of the request.
            settings: of the request; what they leave open is as in this form.
        """
        values = settings.model_dump(exclude_unset=True)
        form = replace(self, prompt=prompt, used=settings.regions or REGION_NAMES)
        form = replace(form, weights={**self.weights, **settings.weights}, caption=settings.caption or "")
        simple = ("negative_prompt", "seed", "num_images", "steps", "guidance", "identity_scale")
        form = replace(form, **{name: values[name] for name in simple if values.get(name) is not None})
        merge = settings.merge_step
        if isinstance(merge, int):
            merge = max(0.0, merge / form.steps)
        if merge is not None:
            form = replace(form, text_share=merge)
        own = {*simple, "prompt", "caption", "regions", "weights", "merge_step", "face", "consent"}
        usual = GenerationSettings().model_dump()
        kept = {name: value for name, value in values.items() if name not in own and value != usual[name]}
        return form, kept


def settings_of(record: PortraitSettings) -> GenerationSettings:
    """The settings that make one portrait of a record alone."""
    settings = record.request_settings()
    return settings.model_copy(update={"seed": record.seed + record.index, "num_images": 1})
