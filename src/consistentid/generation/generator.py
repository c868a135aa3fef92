"""PortraitGenerator: photo and prompt -> portraits, on stock diffusers pipelines."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer, FaceChoice
from consistentid.generation.analyses import AnalysedPhoto, Analyses
from consistentid.generation.callbacks import Cancel, StepReport, Stop
from consistentid.generation.denoise import OutputType
from consistentid.generation.donors import Donors, gather, photos_of
from consistentid.generation.embedder import Embedder
from consistentid.generation.fingerprint import analysis_sha256, dtype_name
from consistentid.generation.gates import gates_for
from consistentid.generation.giver_places import giver_places
from consistentid.generation.loading import conditioner_for, load_parts
from consistentid.generation.masks import fitted_inputs, with_automatic_mask
from consistentid.generation.optimisation import Optimisation, offload
from consistentid.generation.origin import Origin
from consistentid.generation.portrait import Portrait
from consistentid.generation.presets import PRESETS
from consistentid.generation.renderer import Renderer
from consistentid.generation.request import GenerationRequest, PreparedRequest
from consistentid.generation.resolve import layout_for, resolved_request, with_caption
from consistentid.generation.settings import TEXT_TO_IMAGE, GenerationSettings
from consistentid.generation.shown import check_everybody
from consistentid.generation.tasks import task_named
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.tensor_cache import TensorCache, default_folder
from consistentid.images import PhotoSource, pixels_sha256
from consistentid.trust.gates import Gate
from consistentid.trust.marking import Marking
from consistentid.trust.policy import Policy, PromptPolicy
from consistentid.trust.safeguards import Safeguards

logger = logging.getLogger(__name__)


class PortraitGenerator:
    """Analyse -> compose the facial prompt -> condition -> denoise -> record.

    Args:
        pipeline: a stock Stable Diffusion (or XL) text-to-image pipeline; the adapter is attached to its U-Net.
        adapter: the method's weights.
        analyzer: finds the face; without it only finished analyses are accepted.
        conditioner: makes the conditioning; None for the one the adapter's configuration describes.
        policy: which requests are accepted.
        gates: look at every picture, and withhold some.
        marking: of the portraits' files.
        origin: where the weights came from, for the records.
        cache: of conditionings and image features; by default in memory only.
    """

    def __init__(
        self,
        pipeline: Any,
        adapter: IdentityAdapter,
        *,
        analyzer: FaceAnalyzer | None,
        conditioner: Conditioner | None = None,
        policy: Policy | None = None,
        gates: Sequence[Gate] = (),
        marking: Marking | None = None,
        origin: Origin | None = None,
        cache: TensorCache | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.adapter = adapter
        self.policy: Policy = policy or PromptPolicy()
        if not adapter.is_attached:
            adapter.attach(pipeline, merge_loras=True)
        self.cache = cache or TensorCache()
        self.conditioner = conditioner or Conditioner.from_pipeline(pipeline, adapter)
        self.conditioner.keep_in(self.cache)
        self._analyses = Analyses(analyzer)
        self.renderer = Renderer(pipeline, adapter, origin=origin or Origin(), gates=gates, marking=marking)
        self._embedder = Embedder(pipeline, self.conditioner, cache=self.cache, idle=self.renderer.running)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "embedded",
        *,
        adapter: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        offline: bool = False,
        analyzer: FaceAnalyzer | None = None,
        policy: Policy | None = None,
        safeguards: Safeguards | None = None,
        base_config: str | Path | None = None,
        loras: Sequence[str] = (),
        textual_inversions: Sequence[str] = (),
        cache: bool | str | Path = True,
        optimisation: Optimisation | None = None,
        image_encoder: str | Path | None = None,
    ) -> Self:
        """Load a base model and an identity adapter.

        Args:
            model: `embedded` (in the package), a folder, a single `.safetensors` file, a hub id of a Stable Diffusion
                (XL) pipeline, or `sd15` or `sdxl` for the released base model with its adapter.
            adapter: folder of an identity adapter, a released file (`ConsistentID-v1.bin`), or the hub id of either
                (`owner/name`, `owner/name/file`); by default the folder `adapter` inside the model's.
            device: where to run; the CPU by default.
            dtype: of the weights while denoising; `auto` takes what is fast on the device.
            offline: never download.
            analyzer: instead of the embedded one.
            policy: which requests are accepted; None for what the safeguards say.
            safeguards: what may be made, and how files are marked; None for the user's configuration file.
            base_config: diffusers folder that a single file's model is configured by, when it is not plain SD 1.5 or
                SDXL.
            loras: community LoRAs of the base model, each a file with an optional `:weight`; see `fuse_loras`.
            textual_inversions: files of words for the prompt; see `load_textual_inversions`.
            cache: keep conditionings on the disk, in `tensor_cache.default_folder()` or a folder of your choice; they
                hold no photo, but features of the face. False: only in memory.
            optimisation: how the networks are held and run.
            image_encoder: folder or hub id of the adapter's CLIP vision tower, when it is not where the adapter says.

        Raises:
            WeightsNotFound: weights are missing or do not fit each other; the message says what to do.
        """
        optimisation, safeguards = optimisation or Optimisation(), safeguards or Safeguards.configured()
        policy, marking = (
            policy or safeguards.chosen_policy(),
            safeguards.marking(),
        )  # may refuse: before weights are read
        parts = load_parts(
            model,
            adapter=adapter,
            device=device,
            dtype=dtype,
            offline=offline,
            analyzer=analyzer,
            base_config=base_config,
            loras=loras,
            textual_inversions=textual_inversions,
            optimisation=optimisation,
            image_encoder=image_encoder,
        )
        generator = cls(
            parts.pipeline,
            parts.adapter,
            analyzer=parts.analyzer,
            conditioner=conditioner_for(parts, offline=offline),
            policy=policy,
            gates=gates_for(parts, safeguards, model=model, offline=offline),
            marking=marking,
            origin=parts.origin,
            cache=TensorCache(default_folder() if cache is True else Path(cache) if cache else None),
        )
        if optimisation.offload is not None:
            _ = generator.weights_sha256  # while all weights are there
            offload(parts.pipeline, optimisation, device=torch.device(device or "cpu"))
        return generator

    def generate(
        self,
        photo: PhotoSource | FaceAnalysis,
        prompt: str,
        *,
        donors: Donors | None = None,
        task: str = TEXT_TO_IMAGE,
        inputs: Mapping[str, Any] | None = None,
        components: Mapping[str, Any] | None = None,
        latents: Float[Tensor, "n c h w"] | None = None,
        output_type: OutputType = "pil",
        batch_size: int | None = None,
        cancel: Cancel | Stop | None = None,
        callback: Callable[[StepReport], None] | None = None,
        progress: bool = False,
        **settings: Any,
    ) -> list[Portrait]:
        """Make portraits of the person in a photo.

        Args:
            photo: anything `images.load_photo` reads, or a finished analysis.
            prompt: what the portrait shall show.
            donors: photos of others that give something.
            task: entry of `generation.tasks.TASKS`.
            inputs: what the task needs besides, such as `image` and `strength`. `mask_image` may be one of
                `masks.MASK_NAMES` (`face`, `hair`, …): it is then made from the label map, with a feathered border.
            components: networks the task needs besides, such as `controlnet`.
            latents: start noise instead of drawing it from the seed.
            output_type: `latent` leaves the final latents undecoded.
            batch_size: images in one denoising run.
            cancel: a `threading.Event`, or a callable asked after every step.
            callback: told after every step.
            progress: show a progress bar on stderr.
            **settings: fields of `GenerationSettings`.

        Returns:
            `num_images` portraits, image k drawn with seed + k.

        Raises:
            InvalidSettings: a setting is unknown or out of range.
            PromptRefused: the policy does not accept the prompt.
            UnreadableImage, NoFaceFound, FaceNotSelected: the photo cannot be used.
            GenerationCancelled: `cancel` said so.
        """
        request = GenerationRequest(
            photo,
            prompt,
            GenerationSettings.of(**settings),
            task=task,
            inputs=inputs or {},
            components=components or {},
            latents=latents,
            donors=donors or Donors(),
        )
        return self.generate_batch(
            [request],
            output_type=output_type,
            batch_size=batch_size,
            cancel=cancel,
            callback=callback,
            progress=progress,
        )[0]

    @property
    def analyzer(self) -> FaceAnalyzer | None:
        """What finds the face."""
        return self._analyses.analyzer

    def generate_batch(self, requests: Sequence[GenerationRequest], **options: Any) -> list[list[Portrait]]:
        """Portraits of many requests; images with equal settings share denoising runs. Options as in `render`."""
        return self.render([self.prepare(request) for request in requests], **options)

    @property
    def batch_size(self) -> int:
        """Images in one denoising run, unless the caller says otherwise."""
        return self.renderer.batch_size

    @property
    def weights_sha256(self) -> str:
        """Of every parameter that takes part."""
        return self.renderer.weights_sha256

    def expected(self, request: GenerationRequest, *, photo: Image.Image) -> dict[str, object]:
        """What the records of a request's portraits will say, as far as is known before the photo is analysed."""
        return {
            **self._resolved(request).model_dump(),
            "prompt": request.prompt,
            "task": request.task,
            "photo_sha256": pixels_sha256(np.asarray(photo)),
            "donor_photos": photos_of(request.donors),
            "weights_sha256": self.weights_sha256,
            "dtype": dtype_name(self.pipeline.unet),
        }

    def accepted(self, request: GenerationRequest) -> GenerationSettings:
        """The settings of a request, complete as far as they are known before its photo is looked at.

        Raises:
            PromptRefused, InvalidSettings: the policy does not accept a text, or a setting does not fit the model.
        """
        request.check(self.policy, audit=self.renderer.marking.audit, model=self.renderer.origin.named)
        return self._resolved(request)

    def forget(self) -> None:
        """Drop what is remembered of photos and prompts while the process lives: analyses and embeddings."""
        for memory in (self._analyses, self._embedder, self.cache):
            memory.forget()

    def prepare(self, request: GenerationRequest) -> PreparedRequest:
        """Check a request, analyse its photo, and compute its conditioning; what is known already is remembered.

        Raises:
            ConsistentIDError: as in `generate`.
        """
        settings, config = self.accepted(request), self.adapter.config
        preset = PRESETS[config.base]
        layout = layout_for(settings, preset=preset, pipeline=self.pipeline)
        analysed = self._analyses.of(request.photo, settings)
        settings = with_caption(settings, analysed.analysis, task=request.task, config=config)
        size = settings.size or (8, 8)
        looks: dict[str, Any] = {"own": analysed.analysis, "analyse": lambda picture: self.analysed(picture).analysis}
        inputs, blend = with_automatic_mask(
            fitted_inputs(request.inputs, task=task_named(request.task), size=size), size=size, **looks
        )
        people = gather(analysed, request.donors, settings, analyse=self.analysed)
        embeddings, *beside = self._embedder.of_everybody(people, request.prompt, settings)
        check_everybody(people, (embeddings, *beside), settings, photo=analysed.path, conditioner=self.conditioner)
        return PreparedRequest(
            replace(request, settings=settings, inputs=inputs),
            analysed.analysis,
            embeddings,
            analysed.path,
            analysed.sha256,
            analysis_sha256(analysed.analysis),
            people.records,
            blend,
            tuple(beside),
            layout,
            people.left_out,
            giver_places(request, preset=preset, layout=layout, **looks),
        )

    def analysed(self, photo: PhotoSource | FaceAnalysis, *, face: FaceChoice | None = None) -> AnalysedPhoto:
        """A photo besides a request's own; its largest face, or as the adapter was trained, unless one is chosen."""
        chosen = self.adapter.config.quirks.face if face is None else face
        return self._analyses.of(photo, GenerationSettings(face=chosen))

    def render(self, prepared: Sequence[PreparedRequest], **options: Any) -> list[list[Portrait]]:
        """Portraits of prepared requests, in their order; options as in `Renderer.portraits`."""
        return self.renderer.render(prepared, **options)

    def _resolved(self, request: GenerationRequest) -> GenerationSettings:
        config = self.adapter.config
        return resolved_request(request, preset=PRESETS[config.base], config=config, pipeline=self.pipeline)
