"""`consistentid dataset precompute`."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from consistentid.dataset.engine import Worker
    from consistentid.training.adapter.config import AdapterTrainingConfig


def precompute(
    config: Path,
    /,
    *,
    ray: bool = False,
    address: str | None = None,
    workers: int | None = None,
    gpus: float = 0,
    progress: bool = True,
) -> int:
    """Compute what `precompute` in a training configuration asks for; what is there is not computed again.

    Args:
        config: YAML file of a training run.
        ray: work on several cores or machines with Ray.
        address: of a running Ray cluster; its machines must see the folders under the same names.
        workers: processes of Ray, each with all models; by default one for every core.
        gpus: for each worker.
        progress: show a progress bar.
    """
    from tqdm import tqdm

    from consistentid.dataset.engine import RayOptions, run_on_ray
    from consistentid.training.adapter.trainer import AdapterTrainer
    from consistentid.training.run import load_config

    settings = load_config(config)
    if settings.kind != "adapter":
        raise InvalidSettings("only configurations of kind adapter compute latents and features before")
    store = AdapterTrainer(settings).store
    if ray:
        options = RayOptions(address=address, workers=workers, gpus=gpus)
        done = run_on_ray(partial(_worker, settings), store.missing, options)
    else:
        done = map(store.compute, store.missing)
    for _ in tqdm(done, total=len(store.missing), unit="file", disable=not (progress and sys.stderr.isatty())):
        pass
    print(store.folder)
    return 0


def _worker(settings: "AdapterTrainingConfig") -> "Worker":
    from consistentid.training.adapter.trainer import AdapterTrainer

    return AdapterTrainer(settings).store.compute
