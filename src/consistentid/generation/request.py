"""From a request to the images it asks for, and from images of many requests to denoising batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.donors import Donors
from consistentid.generation.embeddings import Embeddings
from consistentid.generation.masks import Blend
from consistentid.generation.places import Layout
from consistentid.generation.settings import TEXT_TO_IMAGE, DonorRecord, GenerationSettings, PortraitSettings
from consistentid.generation.versions import library_versions
from consistentid.identity.region_places import Places
from consistentid.identity.weighted_prompt import text_of
from consistentid.images import PhotoSource
from consistentid.trust.audit import AuditLog
from consistentid.trust.policy import Asked, Policy


@dataclass(frozen=True)
class GenerationRequest:
    """One photo, one prompt, one or more portraits.

    Attributes:
        photo: anything `images.load_photo` reads, or a finished analysis.
        prompt: what the portrait shall show.
        settings: everything else.
        task: entry of `tasks.TASKS`.
        inputs: further arguments of the task's pipeline, such as `image` and `strength`. `mask_image` may be the name
            of an automatic mask (`masks.MASK_NAMES`), with `mask_feather` as width of its border, and `mask_match` to
            fit colours and grain to those around it.
        components: further networks of the task's pipeline, such as `controlnet`.
        latents: (num_images, c, h/8, w/8) start noise, instead of drawing it from the seed.
        donors: photos of others that give something.
    """

    photo: PhotoSource | FaceAnalysis
    prompt: str
    settings: GenerationSettings = GenerationSettings()
    task: str = TEXT_TO_IMAGE
    inputs: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, Any] = field(default_factory=dict)
    latents: Float[Tensor, "n c h w"] | None = None
    donors: Donors = field(default_factory=Donors)

    @property
    def asked(self) -> Asked:
        """What a policy is asked."""
        prompt, negative = (
            text_of(text, weighted=self.settings.prompt_weighting)
            for text in (self.prompt, self.settings.negative_prompt)
        )
        return Asked(
            ", ".join([prompt, *self.settings.clauses]),
            negative,
            (self.settings.caption or "", *self.settings.words.values()),
            self.task,
            photos=1 + len(list(self.donors.by_role())),
            consent=self.settings.consent,
        )

    def check(self, policy: Policy, *, audit: AuditLog | None, model: str) -> None:
        """Ask a policy, and note a refusal.

        Raises:
            PromptRefused: the policy does not accept the request.
        """
        try:
            policy.check(self.asked)
        except PromptRefused as refusal:
            if audit is not None:
                facts = {"model": model, "policy": "refused", "rule": refusal.rule}
                audit.note("refused", facts, personal={"prompt": self.prompt})
            raise


@dataclass(frozen=True)
class PreparedRequest:
    """A request that was accepted: the photo is analysed, the conditioning computed, no setting is open.

    Attributes:
        request: what was asked for, its settings complete.
        analysis: what was found in the photo.
        embeddings: of one image.
        photo: path of the photo, None when it came from memory.
        photo_sha256: of its pixels.
        analysis_sha256: of the analysis.
        donors: the photos of others.
        blend: lays the pictures over the inpainted one; None without an automatic mask.
        beside: embeddings of the other people in the picture.
        layout: where everybody is; None when the canvas is one person's.
        left_out: see `PortraitSettings`.
        giver_places: where whoever gives single regions acts.
    """

    request: GenerationRequest
    analysis: FaceAnalysis
    embeddings: Embeddings
    photo: str | None
    photo_sha256: str
    analysis_sha256: str
    donors: tuple[DonorRecord, ...] = ()
    blend: Blend | None = None
    beside: tuple[Embeddings, ...] = ()
    layout: Layout | None = None
    left_out: tuple[int, ...] = ()
    giver_places: Places = field(default_factory=dict)

    @property
    def everybody(self) -> tuple[Embeddings, ...]:
        """Embeddings of every person of one image."""
        return self.embeddings, *self.beside

    @property
    def settings(self) -> GenerationSettings:
        """The complete settings."""
        return self.request.settings


@dataclass(frozen=True)
class Shot:
    """One image of a prepared request.

    Attributes:
        prepared: the request.
        index: which of its images; drawn with seed + index.
    """

    prepared: PreparedRequest
    index: int

    @property
    def seed(self) -> int:
        """Seed of this image alone."""
        return self.prepared.settings.seed + self.index

    @property
    def latents(self) -> Float[Tensor, "1 c h w"] | None:
        """Given start noise of this image."""
        given = self.prepared.request.latents
        return None if given is None else given[self.index : self.index + 1]

    def record(self, **run: Any) -> PortraitSettings:
        """Everything needed to make this image again.

        Args:
            **run: which weights, machine and batch: the other fields of `PortraitSettings`.
        """
        prepared, request = self.prepared, self.prepared.request
        facial_prompts = [one.conditioning.facial_prompt for one in prepared.everybody]
        return PortraitSettings(
            **prepared.settings.model_dump(),
            prompt=request.prompt,
            task=request.task,
            index=self.index,
            photo=prepared.photo,
            photo_sha256=prepared.photo_sha256,
            analysis_sha256=prepared.analysis_sha256,
            donors=prepared.donors,
            left_out=prepared.left_out,
            facial_prompt=" | ".join(one.text_only for one in facial_prompts),
            regions_used=tuple(name for one in facial_prompts for name in one.regions),
            made_here=request.latents is None and request.task == TEXT_TO_IMAGE,
            versions=library_versions(*_further_libraries(prepared.settings)),
            **run,
        )

    @property
    def run_key(self) -> tuple[object, ...]:
        """Equal for images that can share a denoising run."""
        request, settings = self.prepared.request, self.prepared.settings
        own = () if request.task == TEXT_TO_IMAGE else (id(request),)
        return (
            settings.steps,
            settings.scheduler,
            settings.guidance,
            settings.identity_scale,
            settings.merge_step,
            settings.size,
            settings.places,
            request.task,
            request.latents is None,
            self.prepared.embeddings.conditioning.prompt_embeds.shape[1],  # long prompts have more tokens
            self.prepared.embeddings.identity_tokens.shape[1],
            *own,
        )


def check_one_person(request: GenerationRequest, what: str) -> None:
    """Refuse several people.

    Args:
        request: what is asked for.
        what: is for one person alone.

    Raises:
        InvalidSettings: there are others in the picture.
    """
    if request.donors.beside:
        raise InvalidSettings(f"{what} is for one person; leave the photos of the others beside out")


def _further_libraries(settings: GenerationSettings) -> tuple[str, ...]:
    return ("compel",) if settings.prompt_weighting else ()


def batches(shots: Iterable[Shot], *, batch_size: int) -> list[list[Shot]]:
    """Images that can share a run, together, at most `batch_size` at a time, in the order they came."""
    groups: dict[tuple[object, ...], list[Shot]] = {}
    for shot in shots:
        groups.setdefault(shot.run_key, []).append(shot)
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]
