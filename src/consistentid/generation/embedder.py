"""Photos and prompts -> embeddings, remembered in memory and on the disk."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.generation.donors import Gathered
from consistentid.generation.embeddings import Embeddings, embed
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.stored import conditioning_state, stored
from consistentid.generation.versions import library_versions
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.tensor_cache import TensorCache
from consistentid.memory import Memory

_REMEMBERED = 64  # conditionings kept in memory


class Embedder:
    """Computes embeddings that it does not know.

    Args:
        pipeline: knows the words of textual inversions.
        conditioner: makes the conditioning.
        cache: where they are kept on the disk.
        idle: entered while the projector, which belongs to the U-Net, is used.
    """

    def __init__(
        self, pipeline: Any, conditioner: Conditioner, *, cache: TensorCache, idle: AbstractContextManager[Any]
    ) -> None:
        self.pipeline = pipeline
        self.conditioner = conditioner
        self.cache = cache
        self.idle = idle
        self._known: Memory[Embeddings] = Memory(_REMEMBERED)

    def forget(self) -> None:
        """Drop every embedding that is in memory."""
        self._known.clear()

    def of_everybody(self, people: Gathered, prompt: str, settings: GenerationSettings) -> tuple[Embeddings, ...]:
        """Embeddings of each person of a picture, with that person's clause of the prompt.

        Raises:
            InvalidSettings: they cannot share a run.
            InvalidSettings, InvalidPrompt: as in `embed`.
        """
        everybody = (people, *people.beside)
        prompts = _clauses(prompt, settings.clauses) if settings.clauses else [prompt] * len(everybody)
        found = tuple(self.of(one, text, settings) for one, text in zip(everybody, prompts, strict=True))
        if len({(one.conditioning.prompt_embeds.shape, one.identity_tokens.shape) for one in found}) > 1:
            raise InvalidSettings(
                "the people of one picture need equally many tokens; combine several photos of one of them otherwise "
                "than side by side, and shorten a weighted prompt"
            )
        return found

    def of(self, people: Gathered, prompt: str, settings: GenerationSettings) -> Embeddings:
        """Embeddings of one face and one prompt; see `embed`.

        Raises:
            InvalidSettings, InvalidPrompt: as in `embed`.
        """
        weighting = settings.prompt_weighting and library_versions("compel")["compel"]
        words = (settings.caption, *settings.words.items())
        text = (prompt, settings.negative_prompt, words, settings.clip_skip, weighting)
        key = (*people.key, text, settings.regions, conditioning_state(self.conditioner))

        def compute() -> Embeddings:
            return embed(
                people.face,
                prompt,
                settings,
                pipeline=self.pipeline,
                conditioner=self.conditioner,
                idle=self.idle,
            )

        return self._known.get(key, lambda: stored(self.cache, key, compute))


def _clauses(prompt: str, clauses: Sequence[str]) -> list[str]:
    """What is asked of each person."""
    if "{person}" in prompt:
        return [prompt.replace("{person}", clause) for clause in clauses]
    return [f"{prompt}, {clause}" for clause in clauses]
