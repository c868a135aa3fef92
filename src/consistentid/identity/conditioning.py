"""Conditioning: every embedding that is given to the U-Net."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from consistentid.prompting.facial_prompt import FacialPrompt


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Embeddings of b images, in the order in which the pipeline makes them.

    Attributes:
        prompt_embeds: text with region features, for the steps after the merge step.
        unfused_embeds: the text of `prompt_embeds` without region features, which weights of less than 1 go back to.
        text_only_embeds: the text for the steps up to the merge step.
        negative_embeds: the negative prompt, after the merge step.
        negative_text_only_embeds: the negative prompt, up to the merge step.
        identity: recogniser's embeddings.
        image_features: hidden states of the whole-person image.
        negative_identity: zeros, for the guidance branch.
        negative_image_features: hidden states of the zero image, for the guidance branch.
        facial_prompts: one per image.
        regions: the regions of each image whose features are in its text.
        positions: where they are.
        pooled: SDXL's pooled embedding after the merge step; None with one text encoder.
        text_only_pooled: the same up to the merge step.
        negative_pooled: of the negative prompt.
    """

    prompt_embeds: Float[Tensor, "b l d"]
    unfused_embeds: Float[Tensor, "b l d"]
    text_only_embeds: Float[Tensor, "b l d"]
    negative_embeds: Float[Tensor, "b l d"]
    negative_text_only_embeds: Float[Tensor, "b l d"]
    identity: Float[Tensor, "b di"]
    image_features: Float[Tensor, "b t df"]
    negative_identity: Float[Tensor, "b di"]
    negative_image_features: Float[Tensor, "b t df"]
    facial_prompts: tuple[FacialPrompt, ...]
    regions: tuple[tuple[str, ...], ...] = ()
    positions: tuple[tuple[int, ...], ...] = ()
    pooled: Float[Tensor, "b dp"] | None = None
    text_only_pooled: Float[Tensor, "b dp"] | None = None
    negative_pooled: Float[Tensor, "b dp"] | None = None

    def __len__(self) -> int:
        return len(self.facial_prompts)

    @property
    def facial_prompt(self) -> FacialPrompt:
        """The facial prompt of the first image."""
        return self.facial_prompts[0]

    def image_embeds(self, *, guidance: bool) -> Float[Tensor, "n 1 di"]:
        """What goes into a pipeline's `ip_adapter_image_embeds=[...]`; with guidance the negative half first."""
        return _halves(self.negative_identity, self.identity, guidance)[:, None]

    def clip_embeds(self, *, guidance: bool) -> Float[Tensor, "n t df"]:
        """What goes into `IdentityAdapter.set_image_features` for the same batch."""
        return _halves(self.negative_image_features, self.image_features, guidance)

    def merged_embeds(self, *, guidance: bool) -> Float[Tensor, "n l d"]:
        """What replaces a running pipeline's `prompt_embeds` after the merge step."""
        return _halves(self.negative_embeds, self.prompt_embeds, guidance)

    def merged_pooled(self, *, guidance: bool) -> Float[Tensor, "n dp"] | None:
        """What replaces a running SDXL pipeline's `add_text_embeds` after the merge step."""
        if self.pooled is None or self.negative_pooled is None:
            return None
        return _halves(self.negative_pooled, self.pooled, guidance)

    def with_weights(self, weights: Sequence[Mapping[str, float]]) -> Self:
        """With other weights of the regions in the text: 0 is the word alone, 1 as it is, more goes beyond.

        The guidance branch stays as it is.

        Args:
            weights: of each image, by region; 1 for the others.
        """
        changed = [
            (row, position, weight)
            for row, slots in enumerate(zip(self.regions, self.positions, strict=True))
            for name, position in zip(*slots, strict=True)
            if (weight := weights[row].get(name, 1.0)) != 1
        ]
        if not changed:
            return self
        rows, positions, factors = zip(*changed, strict=True)
        device = self.prompt_embeds.device
        places = torch.tensor(rows, device=device), torch.tensor(positions, device=device)
        chosen = self.prompt_embeds.new_tensor(factors)
        weighted = weighted_tokens(self.unfused_embeds, self.prompt_embeds, places, chosen)
        return replace(self, prompt_embeds=weighted)

    def before_merge(self, rows: Sequence[bool]) -> Self:
        """With some of the images as they are up to the merge step."""
        if not any(rows):
            return self
        bare = torch.tensor(rows, device=self.prompt_embeds.device)
        pooled = self.pooled
        if pooled is not None and self.text_only_pooled is not None:
            pooled = torch.where(bare[:, None], self.text_only_pooled, pooled)
        return replace(
            self,
            prompt_embeds=torch.where(bare[:, None, None], self.text_only_embeds, self.prompt_embeds),
            negative_embeds=torch.where(bare[:, None, None], self.negative_text_only_embeds, self.negative_embeds),
            pooled=pooled,
        )

    def repeat(self, count: int) -> Self:
        """Each image `count` times, one after the other."""
        return self._map(lambda tensor: tensor.repeat_interleave(count, dim=0), repeat=count)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """All tensors on another device or in another precision."""
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    @staticmethod
    def cat(parts: "Sequence[Conditioning]") -> "Conditioning":
        """Several conditionings of one model as one batch."""
        names = [field.name for field in fields(Conditioning) if isinstance(getattr(parts[0], field.name), Tensor)]
        prompts = tuple(prompt for part in parts for prompt in part.facial_prompts)
        regions = tuple(names for part in parts for names in part.regions)
        positions = tuple(row for part in parts for row in part.positions)
        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], facial_prompts=prompts, regions=regions, positions=positions, **tensors)

    def _map(self, change: Callable[[Tensor], Tensor], *, repeat: int = 1) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        prompts = tuple(prompt for prompt in self.facial_prompts for _ in range(repeat))
        regions = tuple(names for names in self.regions for _ in range(repeat))
        positions = tuple(row for row in self.positions for _ in range(repeat))
        return replace(self, facial_prompts=prompts, regions=regions, positions=positions, **tensors)


def weighted_tokens(
    unfused: Float[Tensor, "b l d"],
    fused: Float[Tensor, "b l d"],
    places: tuple[Int[Tensor, " k"], Int[Tensor, " k"]],
    weights: Float[Tensor, " k"],
) -> Float[Tensor, "b l d"]:
    """The fused text with other weights at some places (rows and positions, each once): 0 is the word alone."""
    return fused.index_put(places, torch.lerp(unfused[places], fused[places], weights[:, None]))


def _halves(negative: Tensor, positive: Tensor, guidance: bool) -> Tensor:
    return torch.cat([negative, positive]) if guidance else positive
