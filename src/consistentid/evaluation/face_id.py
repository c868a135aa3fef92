"""IP-Adapter-FaceID and -Plus on a stock diffusers pipeline: the baseline for people who have its weights."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistentid.errors import ConsistentIDError, WeightsNotFound, first_line
from consistentid.evaluation.config import FaceIdConfig
from consistentid.evaluation.makers import Made, Wanted
from consistentid.faces.detection import DetectedFace, FaceDetector
from consistentid.generation.fingerprint import weights_sha256
from consistentid.generation.portrait import save_generated
from consistentid.generation.presets import PRESETS
from consistentid.generation.schedulers import scheduler_named
from consistentid.generation.versions import library_versions
from consistentid.images import load_photo
from consistentid.trust.marking import About, Marking
from consistentid.weight_files import read_weights

_CROP_SIZE = 224  # px of the aligned face that a Plus adapter's image encoder sees


class FaceIdMaker:
    """Draws with IP-Adapter-FaceID.

    Args:
        pipeline: a stock Stable Diffusion pipeline that has loaded the adapter.
        detector: finds the face and embeds it; the released adapters need InsightFace's.
        plus: the adapter also looks at the face.
        shortcut: of Plus v2.
    """

    def __init__(self, pipeline: Any, detector: FaceDetector, *, plus: bool = False, shortcut: bool = False) -> None:
        self.pipeline, self.detector, self.plus, self.shortcut = pipeline, detector, plus, shortcut
        self._own_scheduler = pipeline.scheduler

    @classmethod
    def load(cls, config: FaceIdConfig, *, device: str, offline: bool, detector: FaceDetector | None = None) -> Self:
        """Load what the configuration names.

        Raises:
            WeightsNotFound: the base model, the adapter or the image encoder is not there.
        """
        from diffusers import StableDiffusionPipeline

        from consistentid.faces.arcface import InsightFaceDetector

        try:
            pipeline = StableDiffusionPipeline.from_pretrained(config.base, local_files_only=offline)
            if config.image_encoder is not None:
                _add_image_encoder(pipeline, config.image_encoder, offline=offline)
            pipeline.load_ip_adapter(_nested(read_weights(config.weights)), None, "", image_encoder_folder=None)
        except (OSError, ValueError, KeyError) as error:
            raise WeightsNotFound(
                f"{config.weights} does not fit {config.base} as an IP-Adapter-FaceID ({first_line(error)})"
            ) from error
        pipeline.set_ip_adapter_scale(config.scale)
        pipeline.set_progress_bar_config(disable=True)
        return cls(
            pipeline.to(device),
            detector or InsightFaceDetector(offline=offline),
            plus=config.image_encoder is not None,
            shortcut=config.shortcut,
        )

    @cached_property
    def identity(self) -> str:
        """See `PortraitMaker.identity`."""
        names = ("unet", "vae", "text_encoder", "image_encoder")
        modules = {name: found for name in names if (found := getattr(self.pipeline, name, None)) is not None}
        unet = self.pipeline.unet
        scales = {str(getattr(one, "scale", None)) for one in unet.attn_processors.values()}
        configs = {"scheduler": dict(self._own_scheduler.config), "plus": self.plus, "shortcut": self.shortcut}
        configs |= {"scales": sorted(scales), "dtype": str(unet.dtype), "device": str(unet.device)}
        return f"{weights_sha256(modules, configs)} {self.detector.name} {torch.get_num_threads()}"

    def make(self, batch: Sequence[Wanted]) -> list[Made]:
        """See `PortraitMaker.make`; one by one, for the stock pipeline gives all images of a batch the same person."""
        return [self._made(wanted) for wanted in batch]

    def _made(self, wanted: Wanted) -> Made:
        if wanted.beside:
            return Made(failure="IP-Adapter-FaceID draws one person in a picture")
        try:
            photo = load_photo(wanted.photo)
            faces = self.detector.detect(np.asarray(photo))
            if not faces:
                return Made(failure=f"{self.detector.name} finds no face in {wanted.photo.name}")
            picture = self._draw(wanted, photo, faces[0])
        except ConsistentIDError as error:
            return Made(failure=str(error))
        about = About(library_versions()["consistentid"])
        return Made(save=lambda path: save_generated(picture, path, about=about, marking=Marking()))

    def _draw(self, wanted: Wanted, photo: Image.Image, face: DetectedFace) -> Image.Image:
        settings, pipeline, preset = wanted.settings, self.pipeline, PRESETS["sd15"]
        pipeline.scheduler = scheduler_named(settings.scheduler or preset.scheduler or "", like=self._own_scheduler)
        guidance = preset.guidance if settings.guidance is None else settings.guidance
        embedding = torch.from_numpy(face.identity_embedding)[None, None].to(pipeline.device, pipeline.unet.dtype)
        if self.plus:
            self._look_at(self._crop(photo, face), guided=guidance > 1)
        width, height = settings.size or preset.size or (None, None)
        return pipeline(
            prompt=wanted.prompt,
            negative_prompt=settings.negative_prompt,
            ip_adapter_image_embeds=[
                torch.cat([torch.zeros_like(embedding), embedding]) if guidance > 1 else embedding
            ],
            num_inference_steps=settings.steps or preset.steps,
            guidance_scale=guidance,
            width=width,
            height=height,
            generator=torch.Generator().manual_seed(wanted.seed),
        ).images[0]

    def _crop(self, photo: Image.Image, face: DetectedFace) -> Image.Image:
        """The frame of ArcFace, as the adapter was trained."""
        from insightface.utils.face_align import norm_crop

        return Image.fromarray(norm_crop(np.asarray(photo), landmark=face.landmarks, image_size=_CROP_SIZE))

    def _look_at(self, crop: Image.Image, *, guided: bool) -> None:
        """Give the Plus projection the hidden states of the face."""
        pipeline = self.pipeline
        hidden, nothing = pipeline.encode_image([crop], pipeline.device, 1, output_hidden_states=True)
        states: Float[Tensor, "b 1 t d"] = (torch.cat([nothing, hidden]) if guided else hidden)[:, None]
        projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        projection.clip_embeds, projection.shortcut = states, self.shortcut


def _add_image_encoder(pipeline: Any, source: str, *, offline: bool) -> None:
    from transformers import CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    encoder = CLIPVisionModelWithProjection.from_pretrained(source, local_files_only=offline)
    pipeline.register_modules(image_encoder=encoder, feature_extractor=CLIPImageProcessorPil())


def _nested(state: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """`image_proj` and `ip_adapter`, each by name; a safetensors file has them as prefixes."""
    groups: dict[str, dict[str, object]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in state.items():
        if isinstance(value, Mapping):
            groups.setdefault(name, {}).update(value)
        else:
            group, _, rest = name.partition(".")
            groups.setdefault(group, {})[rest] = value
    return groups
