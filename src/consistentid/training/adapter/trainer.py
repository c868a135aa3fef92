"""A run: dataset and base model -> the folder of an identity adapter."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from consistentid.dataset.holdout import held_out_rows
from consistentid.dataset.shards import FGIDDataset
from consistentid.devices import is_fast_in_bfloat16
from consistentid.errors import InvalidData, InvalidSettings, TrainingStopped
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers
from consistentid.identity.image_encoder import ClipImageEncoder, ImageEncoder, image_encoder_for, zero_features
from consistentid.prompting.facial_prompt import plain_ids
from consistentid.prompting.style import style_named
from consistentid.training.adapter.base import BaseModel, load_base, starting_adapter
from consistentid.training.adapter.config import AdapterTrainingConfig
from consistentid.training.adapter.framing import assign_buckets, buckets
from consistentid.training.adapter.photos import OpenedPhotos, Photos
from consistentid.training.adapter.precompute import Store
from consistentid.training.adapter.sampler import Sampler, Texts
from consistentid.training.adapter.task import AdapterTask, FrozenEncoders
from consistentid.training.adapter.validation import HeldOut
from consistentid.training.continued import begin_or_continue
from consistentid.training.loop import Compute, Validation, fit
from consistentid.training.loop_config import until
from consistentid.training.prediction import TrainingModels
from consistentid.training.process import this_process

ADAPTER = "adapter"  # folder of the result


@dataclass
class AdapterTrainer:
    """One run; each property is made when it is first asked for.

    Attributes:
        config: everything about the run.
        portraits: makes portraits with the adapter in a folder and measures them; called by the main process.
        deadline: of `time.monotonic`, when the run is to stop.
    """

    config: AdapterTrainingConfig
    portraits: Callable[[Path], Validation] | None = None
    deadline: float | None = None

    def run(self) -> Path:
        """Train and return the folder of the adapter.

        Raises:
            TrainingStopped: it was stopped by max_minutes before its end.
            InvalidSettings: the folder holds a run with other settings.
        """
        _ = self.rows, self._recorder  # refuse early: nothing is written, no base model loaded for a missing dataset
        begin_or_continue(self.config.out, self.config)
        task = AdapterTask(
            self.models, self.encoders, self.sampler, self.config.step, self.device, workers=self.config.workers
        )
        loop = until(self.config.loop, self.deadline)
        if not fit(task, loop, folder=self.config.out, validate=self._validate):
            raise TrainingStopped(f"{self.config.out} was stopped by max_minutes; run the same command to go on")
        return self._export(self.config.out / ADAPTER)

    @cached_property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = this_process().device
        return device

    @cached_property
    def dataset(self) -> FGIDDataset:
        """All records."""
        dataset = FGIDDataset.open(self.config.dataset)
        if dataset.manifest.identity_dim != self.config.layout.identity_dim:
            raise InvalidData(
                f"the embeddings of {self.config.dataset} ({dataset.manifest.recogniser}) have "
                f"{dataset.manifest.identity_dim} numbers, the adapter needs {self.config.layout.identity_dim}; build "
                "the dataset with the adapter's recogniser"
            )
        return dataset

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base model."""
        return load_base(self.config.base, offline=self.config.offline)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """Frozen as well."""
        layout = self.config.layout.image_encoder
        encoder = image_encoder_for(layout, device=self.device, offline=self.config.offline)
        if isinstance(encoder, ClipImageEncoder):
            encoder.model.to(self._frozen_dtype())
        return encoder

    @cached_property
    def encoders(self) -> FrozenEncoders:
        """The networks that are never trained, on the device."""
        for network in (self.base.vae, *self.base.text_encoders):
            network.to(self.device)
        return FrozenEncoders(self.base, self.image_encoder)

    @cached_property
    def models(self) -> TrainingModels:
        """The adapter on the U-Net."""
        config, unet = self.config, self.base.unet
        adapter = starting_adapter(config.layout, unet, start_from=config.start_from, seed=config.loop.seed)
        adapter.attach(unet, trainable=True)
        for group, parameters in adapter.parameters_by_group().items():
            for parameter in parameters.values():
                parameter.requires_grad_(group in config.train)
        self._save_memory(adapter)
        style = style_named(config.layout.quirks.prompt_style)
        return TrainingModels(
            unet=unet.to(self.device),
            text_encoders=self.base.text_encoders,
            adapter=adapter,
            scheduler=self.base.scheduler,
            zero_features=zero_features(self.image_encoder).float().to(self.device),
            empty_ids=tuple(plain_ids("", one, style.length)[0].to(self.device) for one in self.base.tokenizers),
            recorder=self._recorder,
        )

    @cached_property
    def photos(self) -> OpenedPhotos:
        """Targets and references, cut when they are asked for."""
        config = self.config.photos
        sizes = buckets(config.resolution) if config.buckets else [(config.resolution, config.resolution)]
        widths, heights = (list(self.dataset.column(name)) for name in ("width", "height"))
        return OpenedPhotos(
            dataset=self.dataset,
            config=config,
            sizes=tuple(sizes),
            buckets=np.array(assign_buckets(widths, heights, sizes, least=self._batch)),
            pixels=self.image_encoder.pixels,
            quirks=self.config.layout.quirks,
            scale=self.base.latent_scale,
        )

    @property
    def _batch(self) -> int:
        """Photos of a step on all processes."""
        return self.config.batch_size * this_process().num_processes * self.config.loop.accumulate

    @cached_property
    def rows(self) -> tuple[list[int], list[int]]:
        """Records to train on, and those of held-out people."""
        held_out = held_out_rows(self.dataset.column("person"))
        training = sorted(set(range(len(self.dataset))) - set(held_out))
        if not training:
            raise InvalidData(f"{self.config.dataset} has no photo of people who are not held out; add more people")
        return training, held_out

    @cached_property
    def sampler(self) -> Sampler:
        """Batches."""
        fixed = self.config.layout.caption
        captions = self.dataset.column("facial_caption") if fixed is None else [fixed] * len(self.dataset)
        return Sampler(
            photos=self.photos if self.config.precompute is None else self._precomputed,
            rows=np.array(self.rows[0]),
            people=np.unique(self.dataset.column("person"), return_inverse=True)[1],
            texts=Texts(
                captions=list(self.dataset.column("caption")),
                facial_captions=list(captions),
                tokenizers=self.base.tokenizers,
                style=style_named(self.config.layout.quirks.prompt_style),
            ),
            buckets=self.photos.buckets,
            size=self.config.batch_size,
            other_photo=self.config.photos.other_photo,
            without_caption=self.config.photos.without_caption,
            order_seed=self.config.loop.seed,
        )

    @cached_property
    def store(self) -> Store:
        """Latents and features on the disk.

        Raises:
            InvalidSettings: the configuration does not ask for them.
        """
        config = self.config.precompute
        if config is None:
            raise InvalidSettings("nothing is computed before; add `precompute: {folder: ...}` to the configuration")
        return Store(config.folder, replace(self.photos, variants=config.variants), self.encoders)

    @property
    def _precomputed(self) -> Photos:
        """Each process computes some of the chunks that are missing."""
        process = this_process()
        if process.is_main_process:
            self.store.clean()
        process.wait_for_everyone()
        missing = self.store.missing
        process.wait_for_everyone()  # all have seen the same
        own = missing[process.process_index :: process.num_processes]
        for chunk in tqdm(own, desc="latents and features", mininterval=5, disable=not process.is_main_process):
            self.store.compute(chunk)
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise TrainingStopped("latents and features are not all computed yet; run the same command to go on")
        process.wait_for_everyone()
        return self.store.results

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What validation looks at; None: nobody is held out."""
        indices = tuple(self.rows[1][: self.config.held_out])
        return HeldOut(self.models, self.encoders, self.sampler, indices, self.device) if indices else None

    @cached_property
    def _recorder(self) -> AttentionRecorder:
        unet, blocks = self.base.unet, self.config.localised_blocks
        for block in blocks or ():
            if not cross_attention_layers(unet, blocks=[block]):
                raise InvalidSettings(f"{block} has no cross-attention; name blocks such as mid_block or up_blocks.1")
        return AttentionRecorder(unet, cross_attention_layers(unet, blocks=blocks))

    def _save_memory(self, adapter: IdentityAdapter) -> None:
        unet, frozen = self.base.unet, self._frozen_dtype()
        if self.config.memory.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        own = {id(one) for group in adapter.parameters_by_group().values() for one in group.values()}
        for network in (unet, *self.base.text_encoders):
            for parameter in network.parameters():
                if id(parameter) not in own:  # the adapter stays as it is, also what is not trained of it
                    parameter.data = parameter.data.to(frozen)

    def _frozen_dtype(self) -> torch.dtype:
        """Sharded weights (FSDP) must all have one type."""
        chosen: str = self.config.memory.frozen_precision
        if chosen == "auto":
            precision = self.config.loop.mixed_precision
            fast = "bf16" if is_fast_in_bfloat16(self.device) else "no"
            sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
            chosen = "fp32" if sharded else {"auto": fast}.get(precision, precision).replace("no", "fp32")
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen]

    def _validate(self, step: int, compute: Compute) -> Validation:
        metrics, picture = {}, None
        if self.held_out is not None:
            metrics = {name: float(value) for name, value in compute(self.held_out.measure).items()}
        if self.portraits is not None:
            folder = self._export(self.config.out / "preview")
            if this_process().is_main_process:
                made = self.portraits(folder)
                metrics, picture = {**metrics, **made.metrics}, made.picture
        if picture is not None:
            picture.save(self.config.out / f"portraits-{step:08d}.png")
        return Validation(metrics, picture)

    def _export(self, folder: Path) -> Path:
        """Write the adapter as it is now; every process calls it, because weights may be shared out."""
        state = {name: _whole(value) for name, value in self.models.adapter.state().items()}
        if this_process().is_main_process:
            IdentityAdapter.from_state(self.config.layout, state, source="the trained adapter").save_pretrained(folder)
        this_process().wait_for_everyone()
        return folder


def _whole(value: Tensor) -> Tensor:
    """A weight that may be shared out over the processes, in one piece."""
    gathered: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return gathered.detach().cpu().clone()
