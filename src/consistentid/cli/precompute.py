"""`consistentid dataset precompute`."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from consistentid.cli.ray import OnRay
from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from consistentid.dataset.engine import Worker
    from consistentid.training.adapter.config import AdapterTrainingConfig


def precompute(
    config: Path,
    /,
    *,
    on_ray: Annotated[OnRay, Parameter(name="*")] = OnRay(),
    progress: bool = True,
) -> int:
    """Compute what `precompute` in a training configuration asks for; what is there is not computed again.

    Args:
        config: YAML file of a training run.
        on_ray: several cores or machines.
        progress: show a progress bar.
    """
    from tqdm import tqdm

    from consistentid.dataset.engine import run_on_ray
    from consistentid.training.adapter.trainer import AdapterTrainer
    from consistentid.training.run import load_config

    options, settings = on_ray.options(), load_config(config)
    if settings.kind != "adapter":
        raise InvalidSettings("only configurations of kind adapter compute latents and features before")
    store = AdapterTrainer(settings).store
    store.clean()
    missing = store.missing
    done = map(store.compute, missing) if options is None else run_on_ray(partial(_worker, settings), missing, options)
    for _ in tqdm(done, total=len(missing), unit="file", disable=not (progress and sys.stderr.isatty())):
        pass
    print(store.folder)
    return 0


def _worker(settings: "AdapterTrainingConfig") -> "Worker":
    from consistentid.training.adapter.trainer import AdapterTrainer

    return AdapterTrainer(settings).store.compute
