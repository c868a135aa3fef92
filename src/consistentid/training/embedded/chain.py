"""The whole chain: photos -> records -> autoencoder, parser -> stores -> decoder -> U-Net stages -> a finished model.

Every stage leaves a finished result under its own name in the output folder and is not done again; a stage that was
stopped goes on from its newest checkpoint.
"""

import logging
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPTokenizer, SegformerForSemanticSegmentation

from consistentid.dataset.builder import build_dataset
from consistentid.dataset.holdout import held_out_rows
from consistentid.dataset.quality import Rules
from consistentid.dataset.selection import Selection
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.wording import corpus
from consistentid.devices import torch_threads
from consistentid.errors import InvalidSettings, TrainingStopped
from consistentid.faces.parsing import SegformerParser
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.prompting.style import ALIGNED
from consistentid.training.embedded.anchored import AnchoredTask
from consistentid.training.embedded.autoencoder import AutoencoderTask, new_autoencoder
from consistentid.training.embedded.config import AnchoredStage, EmbeddedConfig, UNetStage
from consistentid.training.embedded.crops import crop_landmarks, square_crops, target_landmarks
from consistentid.training.embedded.decoder import DecoderTask
from consistentid.training.embedded.diffusion import (
    DiffusionTask,
    choose_trained,
    facial_prompt_tokenizer,
    finished_models,
    new_models,
    trained_modules,
    with_losses,
)
from consistentid.training.embedded.export import export_model, save_whole
from consistentid.training.embedded.initialise import standardise_inputs
from consistentid.training.embedded.latents import encode, latents_of, weights_crc
from consistentid.training.embedded.looks import RegionLooks, looks_of
from consistentid.training.embedded.models import new_tokenizer
from consistentid.training.embedded.parser import STORED_SCALE, ParserTask, new_parser
from consistentid.training.embedded.photo_stores import references_in, targets_in
from consistentid.training.embedded.prior import fit_prior
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.embedded.store import References, Targets
from consistentid.training.embedded.text_warmup import TextTask
from consistentid.training.embedded.token_warmup import TokenTask
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.loop import Task, Validate, Validation, fit
from consistentid.training.loop_config import LoopConfig, until
from consistentid.training.outlines import Outlines
from consistentid.training.prediction import TrainingModels
from consistentid.training.recognition import Recognition
from consistentid.training.state import load_modules, save_modules

logger = logging.getLogger(__name__)

_CROP = 192  # px of the crops that the autoencoder sees
_CROP_SCALE = 2.4
_PARSER_CROP = 256
_RULES = Rules(min_side=96, min_face=40)  # targets have 128 px


@dataclass
class Chain:
    """One run; each property is a stage's result, made when it is first asked for.

    Attributes:
        config: all stages.
        portraits: makes portraits with the model in a folder and measures them; called during the U-Net stages.
        deadline: of `time.monotonic`, when the run is to stop.
    """

    config: EmbeddedConfig
    portraits: Callable[[Path], Validation] | None = None
    deadline: float | None = None

    def run(self) -> Path:
        """Train everything and return the folder of the finished model."""
        with torch_threads(self.config.threads):
            _ = self.decoder, self.parser
            models: TrainingModels | None = None
            for name in self.config.diffusion:
                models = self._diffusion(name, models)
                if models is None:
                    raise TrainingStopped(f"stage {name} was stopped by max_minutes; run the same command to go on")
            if models is None:
                raise InvalidSettings("the configuration names no diffusion stage")
            return self._export(models, self.config.out / "model")

    def _export(self, models: TrainingModels, target: Path) -> Path:
        parts = {"autoencoder": self.decoder, "tokenizer": self.tokenizer, "parser": self.parser}
        export_model(target, models=models, region_strength=self.config.region_strength, **parts)
        return target

    @cached_property
    def dataset(self) -> FGIDDataset:
        """Every usable photo."""
        if self.config.photos is None:
            raise InvalidSettings("no photos: name a folder in the configuration or with --photos")
        folder = self.config.out / "dataset"
        build_dataset([self.config.photos], folder, settings=BuildSettings(rules=_RULES))
        return FGIDDataset.open(folder)

    @cached_property
    def training_records(self) -> Selection:
        """Without the held-out people."""
        held_out = set(held_out_rows(self.dataset.column("person")))
        return Selection(self.dataset, tuple(row for row in range(len(self.dataset)) if row not in held_out))

    @cached_property
    def encoder(self) -> DlibImageEncoder:
        """The frozen image encoder."""
        return DlibImageEncoder()

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """Learnt from the captions' grammar."""
        if self.config.start_from:
            return CLIPTokenizer.from_pretrained(self.config.start_from / "tokenizer")
        return new_tokenizer([*corpus(), *[ALIGNED.template] * 200])

    @cached_property
    def autoencoder(self) -> AutoencoderTiny:
        """Stage 1; its scaling factor gives latents of unit variance."""
        folder = self.config.out / "autoencoder"
        if not self.config.start_from and not (folder / "final").is_dir():
            torch.manual_seed(self.config.autoencoder.loop.seed)
            model = new_autoencoder().to(memory_format=torch.channels_last)
            crops = square_crops(self.training_records, _CROP_SCALE, _CROP)
            landmarks = crop_landmarks(self.training_records, _CROP_SCALE, _CROP)
            parts = (model, crops, landmarks, self.encoder.network)
            task = AutoencoderTask(*parts, batch_size=self.config.autoencoder.batch_size)
            self._finish(self._fit(task, self.config.autoencoder.loop, folder=folder), folder)
            model.register_to_config(scaling_factor=1 / float(encode(model, crops[:512]).float().std()))
            save_whole(model, folder / "final")
        source = self.config.start_from / "vae" if self.config.start_from else folder / "final"
        model = AutoencoderTiny.from_pretrained(source, torch_dtype=torch.float32)
        return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @cached_property
    def parser(self) -> SegformerForSemanticSegmentation:
        """Stage 2."""
        folder = self.config.out / "parser"
        if not self.config.start_from and not (folder / "final").is_dir():
            torch.manual_seed(self.config.parser.loop.seed)
            model = new_parser()
            photos = square_crops(self.training_records, STORED_SCALE, _PARSER_CROP)
            labels = square_crops(self.training_records, STORED_SCALE, _PARSER_CROP, labels=True)
            task = ParserTask(model, photos, labels, batch_size=self.config.parser.batch_size)
            self._finish(self._fit(task, self.config.parser.loop, folder=folder), folder)
            save_whole(model, folder / "final")
        model = SegformerForSemanticSegmentation.from_pretrained(self._parser_folder, dtype=torch.float32)
        return model.requires_grad_(False)

    @property
    def _parser_folder(self) -> Path:
        start = self.config.start_from
        return start / "parser" if start else self.config.out / "parser" / "final"

    @cached_property
    def sampler_parts(self) -> tuple[Targets, References, Tensor]:
        """Stage 3: targets, references and latents."""
        parts, crc = (self._store_folder, self.training_records, self.config.store), weights_crc(self.parser)
        targets = targets_in(*parts)
        parser = SegformerParser(self._parser_folder, offline=True)
        references = references_in(*parts, parser=parser, parser_crc=crc)
        return targets, references, latents_of(self.autoencoder, targets.images, folder=self._store_folder)

    @cached_property
    def decoder(self) -> AutoencoderTiny:
        """Stage 4: the autoencoder whose decoder was trained on."""
        stage = self.config.decoder
        if stage is None:
            return self.autoencoder
        model = deepcopy(self.autoencoder)
        model.decoder.requires_grad_(True)
        targets, _, latents = self.sampler_parts
        landmarks = target_landmarks(self.training_records)
        parts = (model, targets.images, latents, targets.regions, landmarks, self.encoder.network)
        self._once("decoder", DecoderTask(*parts, batch_size=stage.batch_size), stage.loop)
        return model.requires_grad_(False)

    @cached_property
    def _store_folder(self) -> Path:
        """Other photos or variants, other store."""
        made_of = self.config.store.model_dump_json(exclude={"processes"}) + self.dataset.manifest.fingerprint
        folder = self.config.out / "store" / f"{zlib.crc32(made_of.encode()):08x}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def prior(self) -> IdentityPrior:
        """What embeddings say about latents."""
        return fit_prior(*self.sampler_parts, appearance=self.config.asks_for_appearance)

    @cached_property
    def looks(self) -> RegionLooks | None:
        """How regions look, where a stage compares them."""
        if not self.config.compares_regions:
            return None
        return looks_of(self.training_records, self.sampler_parts[2], self._recognition, folder=self._store_folder)

    @cached_property
    def _recognition(self) -> Recognition:
        """The decoder and the recogniser as judges of the next stages."""
        landmarks = target_landmarks(self.training_records)
        return Recognition(self.decoder, self.encoder, landmarks, Outlines(self.parser))

    def _diffusion(self, name: str, models: TrainingModels | None) -> TrainingModels | None:
        """Stage 6: one of the stages on the U-Net; None when it was stopped before its end."""
        stage, folder = self.config.diffusion[name], self.config.out / name
        if models is None:
            models = self._start(stage.loop.seed)
        finished = folder / "final"
        if not finished.is_dir():
            choose_trained(models, stage.train)
            validate = self._validation(models, folder) if self.portraits else None
            if not self._fit(self._task(models, stage), stage.loop, folder=folder, validate=validate):
                return None
            save_modules(finished, trained_modules(models))
        load_modules(finished, trained_modules(models))
        return models

    def _start(self, seed: int) -> TrainingModels:
        """The models after stage 5, or those of another run to be trained on."""
        if self.config.start_from and not self.config.fresh:
            return finished_models(self.config.start_from, self.tokenizer, encoder=self.encoder)
        references, prior = self.sampler_parts[1], self.prior
        _ = self.encoder.network  # made on first use; that draws random numbers
        torch.manual_seed(seed)
        models = new_models(self.tokenizer, self.config.adapter, encoder=self.encoder)
        standardise_inputs(models, references, prior)
        self._warm_up(models)
        return models

    def _warm_up(self, models: TrainingModels) -> None:
        """Stage 5: text encoder and FacialEncoder, before the U-Net learns to ignore them."""
        text, tokens = self.config.text, self.config.tokens
        tokenize = facial_prompt_tokenizer(self.tokenizer)
        self._once("text", TextTask(models.text_encoders[0], tokenize, batch_size=text.batch_size), text.loop)
        self._once("tokens", TokenTask(models, self._sampler(contradict=0.0), tokens.batch_size), tokens.loop)

    def _once(self, name: str, task: Task, loop: LoopConfig) -> None:
        """A stage of one task: trained unless it was, and read."""
        folder = self.config.out / name
        if not (folder / "final").is_dir():
            self._finish(self._fit(task, loop, folder=folder), folder)
            save_modules(folder / "final", task.modules)
        load_modules(folder / "final", task.modules)

    def _task(self, models: TrainingModels, stage: UNetStage) -> Task:
        sampler = self._sampler(**stage.sampled)
        if isinstance(stage, AnchoredStage):
            return AnchoredTask(models, sampler, stage, self.prior)
        recognition = replace(self._recognition, spread=self.looks.spread) if self.looks else self._recognition
        return DiffusionTask(with_losses(models, stage, prior=self.prior, recognition=recognition), sampler, stage)

    def _sampler(self, **shares: float) -> StoreSampler:
        targets, references, latents = self.sampler_parts
        people = self.training_records.column("person")
        names = {person: index for index, person in enumerate(dict.fromkeys(people))}
        return StoreSampler(
            latents=latents,
            targets=targets,
            references=references,
            persons=torch.tensor([names[person] for person in people]),
            tokenize=facial_prompt_tokenizer(self.tokenizer),
            looks=self.looks,
            **shares,
        )

    def _validation(self, models: TrainingModels, folder: Path) -> Validate:
        def validate(step: int, _: object) -> Validation:
            assert self.portraits is not None
            made = self.portraits(self._export(models, folder / "preview"))
            if made.picture is not None:
                made.picture.save(folder / f"portraits-{step:08d}.png")
            return made

        return validate

    def _fit(self, task: Task, loop: LoopConfig, *, folder: Path, validate: Validate | None = None) -> bool:
        return fit(task, until(loop, self.deadline), folder=folder, validate=validate)

    def _finish(self, finished: bool, folder: Path) -> None:
        if not finished:
            raise TrainingStopped(f"stage {folder.name} was stopped by max_minutes; run the same command to go on")
