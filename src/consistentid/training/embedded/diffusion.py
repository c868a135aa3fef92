"""Stages on the U-Net: the base model with the identity branch, then the identity adapter alone."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from consistentid.faces.dlib_resnet import CHIP_SIZE
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers
from consistentid.identity.config import AdapterConfig
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.prompting.facial_prompt import compose_facial_prompt, plain_ids
from consistentid.prompting.style import ALIGNED
from consistentid.training.embedded.config import AdapterSizes, DiffusionStage
from consistentid.training.embedded.models import new_scheduler, new_text_encoder, new_unet
from consistentid.training.embedded.sampler import StoreSampler, Tokenize
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.prediction import TrainingModels
from consistentid.training.recognition import Recognition
from consistentid.training.share import Share
from consistentid.training.step import draw_step, training_step

LOCALISED_PIXELS = 8  # eq. 1 looks at the attention at 8 x 8; at 4 x 4 a region is smaller than a pixel


def new_models(tokenizer: CLIPTokenizer, sizes: AdapterSizes, *, encoder: DlibImageEncoder) -> TrainingModels:
    """Untrained parts with the adapter attached; the same torch seed gives the same weights."""
    unet = new_unet()
    config = AdapterConfig.preset("embedded", caption=ALIGNED.template, **sizes.model_dump())
    adapter = IdentityAdapter.new(config, unet)
    return _assembled(unet, new_text_encoder(tokenizer), adapter, tokenizer=tokenizer, encoder=encoder)


def finished_models(folder: Path, tokenizer: CLIPTokenizer, *, encoder: DlibImageEncoder) -> TrainingModels:
    """The parts of a folder written by `export_model`, to be trained further."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    adapter = IdentityAdapter.from_pretrained(folder / "adapter")
    adapter.facial_encoder.float()
    adapter.load_state({name: value.float() for name, value in adapter.state().items()})
    return _assembled(unet.train(), text_encoder.train(), adapter, tokenizer=tokenizer, encoder=encoder)


def _assembled(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    adapter: IdentityAdapter,
    *,
    tokenizer: CLIPTokenizer,
    encoder: DlibImageEncoder,
) -> TrainingModels:
    adapter.attach(unet, trainable=True)
    black = torch.zeros(1, 3, CHIP_SIZE, CHIP_SIZE)
    return TrainingModels(
        unet=unet.to(memory_format=torch.channels_last),
        text_encoders=(text_encoder,),
        adapter=adapter,
        scheduler=new_scheduler(),
        zero_features=encoder.encode(black)[0].float(),
        empty_ids=(plain_ids("", tokenizer, ALIGNED.length)[0],),
    )


def facial_prompt_tokenizer(tokenizer: CLIPTokenizer) -> Tokenize:
    """Prompt -> ids and region tokens, by the same composition as in generation; on demand without the caption."""

    @lru_cache(maxsize=200_000)
    def tokenize(prompt: str, with_caption: bool) -> tuple[Tensor, dict[str, int]]:
        if not with_caption:
            return plain_ids(prompt, tokenizer, ALIGNED.length)[0], {}
        composed = compose_facial_prompt(prompt, tokenizers=(tokenizer,), style=ALIGNED)
        return composed.ids[0], dict(zip(composed.regions, composed.positions, strict=True))

    return tokenize


@dataclass
class DiffusionTask:
    """Random batches through `training_step`."""

    models: TrainingModels
    sampler: StoreSampler
    stage: DiffusionStage

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return trained_modules(self.models)

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        config, generator, device = self.stage.step, share.generator(), self.models.unet.device
        batch = self.sampler.draw(self.stage.batch_size, generator)
        draws = draw_step(tuple(batch.latents.shape), self.models.scheduler, generator, config=config)
        return training_step(self.models, batch.to(device), draws.to(device), config=config).named()


def trained_modules(models: TrainingModels) -> dict[str, nn.Module]:
    """Networks that a stage may change; projector, k/v branch and LoRAs live inside the U-Net."""
    return {
        "unet": models.unet,
        "text_encoder": models.text_encoders[0],
        "facial_encoder": models.adapter.facial_encoder,
    }


def choose_trained(models: TrainingModels, parts: Iterable[str]) -> None:
    """Let only the named parts require gradients."""
    chosen = set(parts)
    models.unet.requires_grad_("base" in chosen)
    models.text_encoders[0].requires_grad_("text_encoder" in chosen)
    for group, parameters in models.adapter.parameters_by_group().items():
        for parameter in parameters.values():
            parameter.requires_grad_(group in chosen)


def with_losses(
    models: TrainingModels, stage: DiffusionStage, *, prior: IdentityPrior, recognition: Recognition
) -> TrainingModels:
    """The models with what the stage's losses need."""
    side = models.unet.config.sample_size
    layers = tuple(
        name
        for name in cross_attention_layers(models.unet, largest=LOCALISED_PIXELS)
        if name not in cross_attention_layers(models.unet, largest=min(LOCALISED_PIXELS, side) - 1)
    )
    recorder = AttentionRecorder(models.unet, layers) if stage.step.looks_at_attention else None
    told = prior if stage.appearance else replace(prior, appearance=None)
    return replace(models, recorder=recorder, prior=told, recognition=recognition)
