"""Conditioner: analysed faces and prompts -> Conditioning, in batches."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import REGION_NAMES, REGIONS
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.broadcast import batch_size, each
from consistentid.identity.cached_encoder import CachedImageEncoder
from consistentid.identity.checksum import WeightsChecksum
from consistentid.identity.compatibility import check_image_encoder, check_recogniser, check_regions
from consistentid.identity.conditioning import Conditioning, weighted_tokens
from consistentid.identity.control import IDENTITY, check_parts
from consistentid.identity.face_features import FaceFeatures, RegionTokens
from consistentid.identity.image_encoder import ImageEncoder, image_encoder_for, zero_features
from consistentid.identity.mixing import MixedFace, as_mixed, mixed_embedding
from consistentid.identity.tensor_cache import TensorCache
from consistentid.identity.text import EncodedPrompts, encode_prompts
from consistentid.identity.weighted_prompt import WeightedPrompt
from consistentid.identity.weighted_text import WeightedTextEncoder, weighted_style
from consistentid.prompting.facial_prompt import FacialPrompt, compose_facial_prompt
from consistentid.prompting.rewording import reworded
from consistentid.prompting.style import style_named

Face = FaceAnalysis | MixedFace
# The order of the release's image list: by parser label, so eyes come before ears (design notes, method 3.6).
_LABEL_ORDER = tuple(region.name for region in sorted(REGIONS, key=lambda region: region.official_labels))


class Conditioner:
    """Turns faces and prompts into what the U-Net is given.

    Args:
        adapter: its FacialEncoder and conventions.
        text_encoders: those of the base model, one or two.
        tokenizers: likewise.
        image_encoder: the one that the adapter was trained with.

    Raises:
        InvalidSettings: the image encoder is not the one that the adapter was trained with.
    """

    def __init__(
        self,
        adapter: IdentityAdapter,
        *,
        text_encoders: Sequence[Any],
        tokenizers: Sequence[Any],
        image_encoder: ImageEncoder,
    ) -> None:
        check_image_encoder(image_encoder, adapter.config)
        self.adapter = adapter
        self.text_encoders = list(text_encoders)
        self.tokenizers = list(tokenizers)
        self.image_encoder = image_encoder
        self._images = CachedImageEncoder(image_encoder, TensorCache())
        self._checksum = WeightsChecksum()
        self.style = style_named(adapter.config.quirks.prompt_style)

    @classmethod
    def from_pipeline(
        cls,
        pipeline: Any,
        adapter: IdentityAdapter,
        *,
        image_encoder: ImageEncoder | None = None,
    ) -> Self:
        """With the text encoders of a stock pipeline, and the image encoder that the adapter's config names."""
        names = [""] if getattr(pipeline, "text_encoder_2", None) is None else ["", "_2"]
        return cls(
            adapter,
            text_encoders=[getattr(pipeline, f"text_encoder{name}") for name in names],
            tokenizers=[getattr(pipeline, f"tokenizer{name}") for name in names],
            image_encoder=image_encoder or image_encoder_for(adapter.config.image_encoder, device=pipeline.device),
        )

    def keep_in(self, cache: TensorCache) -> None:
        """Keep image features there from now on; without this call, in memory."""
        self._images.cache = cache

    @torch.no_grad()
    def condition(
        self,
        analysis: Face | Sequence[Face],
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        caption: str | Sequence[str] | None = None,
        images_per_prompt: int = 1,
        regions: Collection[str] | None = None,
        words: Mapping[str, str] | None = None,
        identity: bool = True,
        weighted: bool = False,
    ) -> Conditioning:
        """Embeddings for a batch of images.

        Args:
            analysis: one face, of one photo or mixed, for all prompts, or one per prompt.
            prompt: one prompt for all faces, or one per face.
            negative_prompt: one for all, or one each.
            caption: description of the face, for all or each; None: the adapter's own, the face's, or the style's.
            images_per_prompt: images of each pair, one after the other.
            regions: the regions that take part, of those that the photo shows; None: all, (): none.
            words: what the captions say of single regions instead, see `reworded`.
            identity: whether the identity tokens know the person; without, they are those of the guidance branch.
            weighted: whether both prompts are in compel's syntax; all texts are then embedded in as many chunks of
                the text encoder's context as the longest needs, in the aligned style.

        Raises:
            InvalidSettings: faces, prompts, negative prompts or captions differ in number; a face was recognised by
                another network than the adapter's; a region is unknown, or the photo that alone is to give it does not
                show it; compel is not installed.
            InvalidPrompt: see `compose_facial_prompt` and `WeightedPrompt.parse`.
        """
        count = batch_size(analysis, prompt, negative_prompt, caption)
        check_regions(regions)
        check_parts(words or {}, known=REGION_NAMES)
        faces = [as_mixed(face) for face in each(analysis, count)]
        features = self._features(faces)
        shown = [[name for name in features.shown(face) if regions is None or name in regions] for face in faces]
        rows = list(zip(each(prompt, count), faces, shown, each(caption, count), strict=True))
        encoded = self._encoded(rows, each(negative_prompt, count), words=words or {}, weighted=weighted)
        slots = [self._slots(one, names) for one, names in zip(encoded.prompts, shown, strict=True)]
        text = self._texts(
            encoded, features.regional(faces, slots, encoder=self.adapter.facial_encoder, nothing=self.zero_features)
        )
        conditioning = self._with_identity(text, encoded.prompts, slots, faces, features if identity else None)
        return conditioning.repeat(images_per_prompt) if images_per_prompt > 1 else conditioning

    def facial_prompt(
        self,
        prompt: str | WeightedPrompt,
        analysis: Face,
        *,
        regions: Collection[str],
        caption: str | None = None,
        words: Mapping[str, str] | None = None,
    ) -> FacialPrompt:
        """The facial prompt of a face, in the adapter's style; `regions` are those with an image.

        That of a weighted prompt is not cut in the aligned style.
        """
        captions = (caption, self.adapter.config.caption, analysis.description, self.style.template)
        text, style = (prompt, self.style) if isinstance(prompt, str) else (prompt.text, weighted_style(self.style))
        return compose_facial_prompt(
            text,
            caption=reworded(next(one for one in captions if one is not None), words or {}),
            regions=REGION_NAMES if self.style.words == "all" else regions,
            tokenizers=self.tokenizers,
            style=style,
        )

    @property
    def zero_features(self) -> Float[Tensor, "t di"]:
        """Hidden states of the zero image."""
        return self._placed(zero_features(self._images))

    def weights_checksum(self) -> str | None:
        """Of everything that makes a conditioning; None when weights are not in memory."""
        adapter = {key: value for key, value in self.adapter.state().items() if not key.startswith("ip_adapter.")}
        parts = {f"text{index}": encoder.state_dict() for index, encoder in enumerate(self.text_encoders)}
        sums = [self._checksum.of(name, tensors) for name, tensors in {"adapter": adapter, **parts}.items()]
        sums.append(self._images.weights_checksum())
        return None if None in sums else " ".join(map(str, sums))

    @torch.no_grad()
    def identities(self, face: Face) -> tuple[Float[Tensor, "n di"], Float[Tensor, "n t df"]]:
        """What the identity tokens of a face are made of: n is 1, or the number of photos that are side by side.

        Returns:
            embeddings of the recogniser, and features of the whole images.
        """
        faces = as_mixed(face).identities()
        features = self._features(faces)
        return self._embeddings(faces), torch.stack([features.whole(one) for one in faces])

    def _features(self, faces: Sequence[MixedFace]) -> FaceFeatures:
        config = self.adapter.config
        check_recogniser([photo for face in faces for photo in face.faces()], config)
        return FaceFeatures(faces, self._images, quirks=config.quirks, place=self._placed)

    def _embeddings(self, faces: Sequence[MixedFace]) -> Float[Tensor, "b di"]:
        return self._placed(torch.stack([torch.from_numpy(mixed_embedding(face.shares(IDENTITY))) for face in faces]))

    def _slots(self, prompt: FacialPrompt, shown: Collection[str]) -> list[tuple[str, int]]:
        """Which region's image goes to which position."""
        if self.adapter.config.quirks.region_pairing == "position":
            images = [name for name in _LABEL_ORDER if name in prompt.marked_regions and name in shown]
            return list(zip(images, prompt.positions, strict=False))
        return [pair for pair in zip(prompt.regions, prompt.positions, strict=True) if pair[0] in shown]

    def _weighted(self, prompt: str) -> WeightedPrompt:
        parsed = WeightedPrompt.parse(prompt)
        return parsed if self.style.marking == "release" else parsed.trimmed()

    def _encoded(
        self,
        faces: Sequence[tuple[str, MixedFace, list[str], str | None]],
        negatives: Sequence[str],
        *,
        words: Mapping[str, str],
        weighted: bool,
    ) -> EncodedPrompts:
        """Facial prompts of prompt, face, shown regions and caption, and negative prompts, encoded."""
        weights = [self._weighted(prompt) for prompt, *_ in faces] if weighted else []
        texts: list[str | WeightedPrompt] = [*weights] or [prompt for prompt, *_ in faces]
        prompts = [
            self.facial_prompt(text, face, regions=names, caption=caption, words=words)
            for text, (_, face, names, caption) in zip(texts, faces, strict=True)
        ]
        parts = (self.text_encoders, self.tokenizers)
        how: dict[str, Any] = {"style": self.style, "layer": self.adapter.config.quirks.text_layer}
        encoded = (
            WeightedTextEncoder(*parts, **how).encode(prompts, weights, negatives)
            if weights
            else encode_prompts(prompts, negatives, *parts, **how)
        )
        return encoded.to(self.adapter.facial_encoder.device)

    def _texts(self, encoded: EncodedPrompts, regional: RegionTokens) -> dict[str, Tensor | None]:
        full, bare, negative = encoded.full, encoded.text_only, encoded.negative
        negative_tokens = negative.tokens
        if self.adapter.config.quirks.negative_regions:
            negative_tokens = self._fuse(negative.tokens, regional, nobody=True)
        return {
            "prompt_embeds": self._fuse(full.tokens, regional),
            "unfused_embeds": full.tokens,
            "text_only_embeds": bare.tokens,
            "negative_embeds": negative_tokens,
            "negative_text_only_embeds": negative_tokens,
            "pooled": full.pooled,
            "text_only_pooled": bare.pooled,
            "negative_pooled": negative.pooled,
        }

    def _fuse(self, text: Tensor, regional: RegionTokens, *, nobody: bool = False) -> Tensor:
        """Texts with their region tokens, or at the same positions with that of the zero image."""
        if regional.tokens is None:
            return text
        encoder = self.adapter.facial_encoder
        tokens, nothing = regional.tokens[:-1], regional.tokens[-1:]
        given = nothing.expand_as(tokens) if nobody else tokens
        fused = encoder.fuse(text.to(encoder.dtype), given, regional.positions, regional.valid).to(text.dtype)
        strengths = text.new_tensor([self.adapter.config.strength_of(name) for name in regional.names])
        if (strengths == 1).all():
            return fused
        rows, slots = torch.nonzero(regional.valid, as_tuple=True)
        return weighted_tokens(text, fused, (rows, regional.positions[rows, slots]), strengths)

    def _with_identity(
        self,
        text: dict[str, Tensor | None],
        prompts: Sequence[FacialPrompt],
        slots: Sequence[list[tuple[str, int]]],
        faces: Sequence[MixedFace],
        features: FaceFeatures | None,
    ) -> Conditioning:
        embeddings = self._embeddings(faces)
        nobody = torch.zeros_like(embeddings)
        nothing = self.zero_features.expand(len(faces), -1, -1)
        return Conditioning(
            **text,  # type: ignore[arg-type]
            identity=nobody if features is None else embeddings,
            image_features=nothing if features is None else torch.stack([features.whole(face) for face in faces]),
            negative_identity=nobody,
            negative_image_features=nothing,
            facial_prompts=tuple(prompts),
            regions=tuple(tuple(name for name, _ in row) for row in slots),
            positions=tuple(tuple(position for _, position in row) for row in slots),
        )

    def _placed(self, tensor: Tensor) -> Tensor:
        encoder = self.adapter.facial_encoder
        return tensor.to(device=encoder.device, dtype=encoder.dtype)
