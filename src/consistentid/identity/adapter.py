"""IdentityAdapter: the weights of the method, and their life on a diffusers U-Net."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.identity.attachment import Attachment
from consistentid.identity.config import AdapterConfig
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.layout import (
    State,
    ip_adapter_shapes,
    load_projector,
    new_ip_adapter,
    new_projector,
    projector_shapes,
    projector_to_checkpoint,
)
from consistentid.weight_files import read_safetensors

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "adapter.safetensors"  # diffusers' load_ip_adapter reads it too; it skips the facial_encoder part
GROUPS = ("facial_encoder", "projector", "kv", "lora")


class IdentityAdapter:
    """FacialEncoder, projector, k/v branch and LoRAs of one checkpoint.

    Attach it to a pipeline or U-Net, generate or train, detach it: the U-Net is bit-equal to what it was.

    Attributes:
        config: dimensions and conventions.
        facial_encoder: the network that fuses regions into the text.
    """

    def __init__(
        self, config: AdapterConfig, *, facial_encoder: FacialEncoder, image_proj: State, ip_adapter: State
    ) -> None:
        self.config = config
        self.facial_encoder = facial_encoder
        self._image_proj = image_proj
        self._ip_adapter = ip_adapter
        self._attachment: Attachment | None = None
        self._own_projector: tuple[State, Any] | None = None  # for use outside of a U-Net, and the weights it has

    @classmethod
    def new(cls, config: AdapterConfig, unet: Any, *, seed: int = 0) -> Self:
        """Fresh weights for training on a U-Net; the same seed gives the same weights.

        The k/v branch starts as the U-Net's own text branch, the LoRAs without effect.
        """
        _check_text_dim(config, unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            facial_encoder = FacialEncoder.from_adapter_config(config)
            image_proj = projector_to_checkpoint(new_projector(config).state_dict())
            ip_adapter = new_ip_adapter(unet, config.lora_rank)
        return cls(config, facial_encoder=facial_encoder, image_proj=image_proj, ip_adapter=ip_adapter)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a folder written by `save_pretrained`.

        Raises:
            WeightsNotFound: a file is missing or damaged, or its tensors are not those that the configuration asks for.
        """
        folder = Path(folder)
        config = AdapterConfig.load(folder / CONFIG_NAME)
        path = folder / WEIGHTS_NAME
        if not path.is_file():
            raise WeightsNotFound(f"{path} does not exist; give the folder of an identity adapter")
        return cls.from_state(config, read_safetensors(path), source=str(path))

    @classmethod
    def from_state(cls, config: AdapterConfig, state: State, *, source: str) -> Self:
        """An adapter from one flat state dict, as given by `state`; `source` names it in errors."""
        parts = split_state(state)
        with torch.device("meta"):
            facial_encoder = FacialEncoder.from_adapter_config(config)
        expected = {key: tuple(value.shape) for key, value in facial_encoder.state_dict().items()}
        check_shapes(parts["facial_encoder"], expected, source=f"{source} (facial_encoder)")
        check_shapes(parts["image_proj"], projector_shapes(config), source=f"{source} (image_proj)")
        facial_encoder.load_state_dict(parts["facial_encoder"], assign=True)
        return cls(
            config,
            facial_encoder=facial_encoder.eval(),
            image_proj=parts["image_proj"],
            ip_adapter=parts["ip_adapter"],
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `adapter.safetensors`, each atomically; the weights are those of this moment."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {key: value.contiguous().cpu() for key, value in self.state().items()}
        weights, config = folder / f".{WEIGHTS_NAME}.part", folder / f".{CONFIG_NAME}.part"
        save_file(state, weights, metadata={"format": "pt"})
        config.write_text(self.config.to_json())
        weights.replace(folder / WEIGHTS_NAME)
        config.replace(folder / CONFIG_NAME)

    def state(self) -> State:
        """All weights in one flat dict (`facial_encoder.`, `image_proj.`, `ip_adapter.`); may share memory."""
        image_proj, ip_adapter = self._image_proj, self._ip_adapter
        if self._attachment is not None and self._attachment.trainable:
            image_proj, ip_adapter = self._attachment.state()
        parts = {
            "facial_encoder": self.facial_encoder.state_dict(),
            "image_proj": image_proj,
            "ip_adapter": ip_adapter,
        }
        return {f"{part}.{key}": value for part, tensors in parts.items() for key, value in tensors.items()}

    def load_state(self, state: State) -> None:
        """Overwrite all weights with those of a flat dict, also while attached (EMA, resume)."""
        parts = split_state(state)
        self.facial_encoder.load_state_dict(parts["facial_encoder"])
        self._image_proj, self._ip_adapter = parts["image_proj"], parts["ip_adapter"]
        if self._attachment is not None:
            self._attachment.load(self._image_proj, self._ip_adapter)

    def attach(self, target: Any, *, trainable: bool = False, merge_loras: bool = False) -> None:
        """Put the adapter into a U-Net, or a pipeline's.

        Args:
            target: a `UNet2DConditionModel` or a pipeline that has one.
            trainable: whether the adapter's weights require gradients, and are taken over when detached.
            merge_loras: add the LoRAs to the U-Net's weights: faster, at the price of a copy of its attention weights.

        Raises:
            InvalidSettings: it is attached already, or does not fit the U-Net.
        """
        if self._attachment is not None:
            raise InvalidSettings("the adapter is attached already; detach it first")
        unet = getattr(target, "unet", target)
        _check_text_dim(self.config, unet)
        check_shapes(self._ip_adapter, ip_adapter_shapes(unet, self.config.lora_rank), source="this U-Net's adapter")
        self._attachment = Attachment(
            unet,
            image_proj=self._image_proj,
            ip_adapter=self._ip_adapter,
            shortcut=self.config.shortcut,
            trainable=trainable,
            merge_loras=merge_loras,
        )
        if not trainable:  # hold the weights once
            image_proj, ip_adapter = self._attachment.state()
            self._image_proj = _shared(self._image_proj, image_proj)
            self._ip_adapter = _shared(self._ip_adapter, ip_adapter)
        self.facial_encoder.to(unet.device).requires_grad_(trainable)
        self.set_scale(self.config.identity_scale)

    def detach(self) -> None:
        """Take the adapter out of the U-Net, which is then bit-equal to what it was.

        Raises:
            InvalidSettings: it is not attached.
        """
        attachment = self._attached()
        if attachment.trainable:
            self._image_proj, self._ip_adapter = attachment.state()
        attachment.remove()
        self._attachment = None

    @contextmanager
    def attached(self, target: Any, *, trainable: bool = False, merge_loras: bool = False) -> Iterator[Self]:
        """Attach for the length of a `with` block; see `attach`."""
        self.attach(target, trainable=trainable, merge_loras=merge_loras)
        try:
            yield self
        finally:
            self.detach()

    @property
    def is_attached(self) -> bool:
        """Whether the adapter is inside a U-Net."""
        return self._attachment is not None

    @property
    def projector(self) -> nn.Module:
        """The live projector while attached."""
        projector: nn.Module = self._attached().projector
        return projector

    def set_scale(self, scale: float) -> None:
        """Weight of the identity tokens while attached; 0 also switches the LoRAs off: the base model itself."""
        self._attached().set_scale(scale)

    def set_image_features(self, image_features: Float[Tensor, "b t di"]) -> None:
        """Image features that go with the identity embeddings (`image_embeds`) of the coming U-Net calls."""
        self._attached().set_image_features(image_features)

    def identity_tokens(
        self, identity_embedding: Float[Tensor, "b d"], image_features: Float[Tensor, "b t di"]
    ) -> Float[Tensor, "b 4 dt"]:
        """The identity tokens of a batch; zeros and zero-image features give those of the guidance branch.

        Outside of a U-Net, too.
        """
        if self._attachment is not None:
            return self._attachment.identity_tokens(identity_embedding, image_features)
        if self._own_projector is None or self._own_projector[0] is not self._image_proj:
            projector = load_projector(self._image_proj, shortcut=self.config.shortcut).eval().requires_grad_(False)
            self._image_proj = projector_to_checkpoint(projector.state_dict())  # hold the weights once
            self._own_projector = self._image_proj, projector
        projector = self._own_projector[1]
        projector.clip_embeds = image_features[:, None].to(projector.proj_in.weight.dtype)
        tokens: Tensor = projector(identity_embedding)
        return tokens

    @contextmanager
    def fixed_tokens(self, tokens: Float[Tensor, "b *p t dt"]) -> Iterator[Callable[[Tensor], None]]:
        """Let every U-Net call of the block use these identity tokens, whatever `image_embeds` it is given.

        Saves the projection in every step. And stock pipelines repeat the embeddings of one photo for every image of
        a batch, so this is the only way to give each image of a batch its own person. With guidance the negative
        half comes first; give the pipeline any `ip_adapter_image_embeds` of the right rank. Tokens of p people need
        diffusers' `ip_adapter_masks`, one for each.

        Yields:
            A function that exchanges the tokens, between two calls.
        """
        with self._attached().fixed_tokens(tokens) as use:
            yield use

    def parameters_by_group(self) -> dict[str, dict[str, nn.Parameter]]:
        """Live parameters of `GROUPS` by name; attach first."""
        return {"facial_encoder": dict(self.facial_encoder.named_parameters()), **self._attached().parameters()}

    def _attached(self) -> Attachment:
        if self._attachment is None:
            raise InvalidSettings("the adapter is not attached; call attach(pipeline) first")
        return self._attachment


def _shared(own: State, live: State) -> State:
    """The weights inside the U-Net instead of their copies, where they are not in another precision or place."""
    return {
        key: live[key] if (live[key].dtype, live[key].device) == (value.dtype, value.device) else value
        for key, value in own.items()
    }


def split_state(state: State) -> dict[str, State]:
    """A flat state dict -> its parts."""
    parts: dict[str, State] = {"facial_encoder": {}, "image_proj": {}, "ip_adapter": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise WeightsNotFound(f"unknown tensor {key} in an identity adapter")
        parts[part][rest] = value
    return parts


def check_shapes(state: State, expected: dict[str, tuple[int, ...]], *, source: str) -> None:
    """Compare keys and shapes.

    Raises:
        WeightsNotFound: lists what is missing, unknown or of another shape.
    """
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unknown {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != tuple(shape)
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise WeightsNotFound(f"{source} has another layout than its configuration says: {shown}")


def _check_text_dim(config: AdapterConfig, unet: Any) -> None:
    if unet.config.cross_attention_dim != config.text_dim:
        raise InvalidSettings(
            f"the U-Net reads texts of width {unet.config.cross_attention_dim}, the adapter writes {config.text_dim}; "
            "use the base model that the adapter was trained for"
        )
