"""Where a generator's weights came from and how they run: what a portrait's record needs to load them again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from consistentid.generation.optimisation import Optimisation


class Origin(BaseModel):
    """The arguments of `PortraitGenerator.from_pretrained` that decide what a portrait looks like.

    Attributes:
        model: the base model.
        adapter: the identity adapter, None for the one inside the base model's folder.
        image_encoder: folder of the image encoder, None for the one that the adapter names.
        base_config: what a single file was configured by.
        loras: community LoRAs with their weights.
        textual_inversions: files of words.
        optimisation: how the networks run; sums are added in another order with another memory layout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "in memory"
    adapter: str | None = None
    image_encoder: str | None = None
    base_config: str | None = None
    loras: tuple[str, ...] = ()
    textual_inversions: tuple[str, ...] = ()
    optimisation: Optimisation = Optimisation()

    @property
    def named(self) -> str:
        """The base model without the folder it is in."""
        return without_folder(self.model) or ""

    def without_folders(self) -> Self:
        """The same for others: names instead of places on this machine."""
        one = {
            name: without_folder(getattr(self, name)) for name in ("model", "adapter", "image_encoder", "base_config")
        }
        many = {
            name: tuple(str(without_folder(source)) for source in getattr(self, name))
            for name in ("loras", "textual_inversions")
        }
        return self.model_copy(update={**one, **many})


def without_folder(source: str | None) -> str | None:
    """A name for others: the last part of a path on this machine; hub ids and names stay as they are."""
    return Path(source).name if source and Path(source).is_absolute() else source


def absolute(source: str | Path | None) -> str | None:
    """A path that holds from any folder; hub ids and names stay as they are."""
    if source is None or not Path(source).exists():
        return None if source is None else str(source)
    return str(Path(source).resolve())


def absolute_loras(loras: Sequence[str]) -> tuple[str, ...]:
    """The same for files with an optional `:weight`."""
    split = (lora.rpartition(":") for lora in loras)
    return tuple(
        f"{absolute(name)}:{weight}" if name and not Path(lora).exists() else str(absolute(lora))
        for lora, (name, _, weight) in zip(loras, split, strict=True)
    )
