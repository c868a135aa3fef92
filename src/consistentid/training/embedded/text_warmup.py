"""Warm-up of the text encoder: its mean hidden state must tell what a prompt asks for.

An untrained cross-attention looks at all 77 positions alike, so the U-Net first sees the mean of the hidden states;
with random weights that mean hardly depends on the words, and the U-Net learns to ignore it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from consistentid.dataset.wording import Attributes, random_prompt
from consistentid.training.embedded.sampler import Tokenize
from consistentid.training.embedded.store import BACKGROUNDS, EXPRESSIONS, GENDERS, HAIRS
from consistentid.training.share import Share

_ATTRIBUTES: tuple[Sequence[str | None], ...] = (GENDERS, EXPRESSIONS, HAIRS, BACKGROUNDS)


class TextTask:
    """Linear classification of every attribute, the unsaid one included, from random prompts."""

    def __init__(self, text_encoder: CLIPTextModel, tokenize: Tokenize, *, batch_size: int) -> None:
        self._encoder, self._tokenize, self._batch_size = text_encoder, tokenize, batch_size
        self._heads = nn.ModuleList(nn.Linear(text_encoder.config.hidden_size, len(words)) for words in _ATTRIBUTES)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"text_encoder": self._encoder, "heads": self._heads}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=share.generator())))
        chosen = np.stack([self._choose(rng) for _ in range(self._batch_size)])
        ids = torch.stack([self._ids(row, rng) for row in chosen])
        summary = self._encoder(ids).last_hidden_state.mean(1)
        labels = torch.from_numpy(chosen)
        parts = [F.cross_entropy(head(summary).float(), labels[:, k]) for k, head in enumerate(self._heads)]
        return {"loss": torch.stack(parts).mean()}

    def _choose(self, rng: np.random.Generator) -> np.ndarray:
        """An index per attribute; half of them are not said."""
        return np.array([rng.integers(len(words)) if rng.random() < 0.5 else 0 for words in _ATTRIBUTES])

    def _ids(self, row: np.ndarray, rng: np.random.Generator) -> Tensor:
        words = (names[index] for names, index in zip(_ATTRIBUTES, row, strict=True))
        return self._tokenize(random_prompt(Attributes(*words), rng), bool(rng.random() < 0.8))[0]
