"""Options that several verbs share."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from consistentid.generation.optimisation import Optimisation

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Loading:
    """Which model, and how it runs.

    Attributes:
        model: embedded, a folder, or a hub id of a Stable Diffusion pipeline.
        adapter: folder of an identity adapter, or a released file; the embedded model has its own.
        device: cpu, cuda, mps, …
        dtype: type of the weights while denoising; auto takes what is fast on the device.
        batch_size: images in one denoising run; the model's preset decides when it is not given.
        offline: never download anything.
        progress: show progress bars.
        cache: keep conditionings (no photos, but features of faces) in $CONSISTENTID_CACHE or ~/.cache/consistentid.
        optimisation: how the networks are held and run.
    """

    model: str | None = None
    adapter: str | None = None
    device: str | None = None
    dtype: Dtype = "auto"
    batch_size: int | None = None
    offline: bool = False
    progress: bool = True
    cache: bool = True
    optimisation: Annotated[Optimisation, Parameter(name="*")] = Optimisation()

    @property
    def shows_progress(self) -> bool:
        """Bars are for people: not when stderr goes to a file."""
        return self.progress and sys.stderr.isatty()
