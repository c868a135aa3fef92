"""The batches of an evaluation on Ray: the same worker, one on every node that is free."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.evaluation.config import EvaluationConfig
from consistentid.evaluation.parts import worker_for
from consistentid.evaluation.run import Batch
from consistentid.generation.origin import absolute

logger = logging.getLogger(__name__)


def work_on_ray(config: EvaluationConfig, batches: Sequence[Batch], *, workers: int = 1) -> None:
    """Draw and measure all batches; the results are files in `config.out`, which every node must see.

    Args:
        config: what is evaluated; each worker loads its own models.
        batches: of portraits.
        workers: how many at a time; each takes an equal share of the processors.

    Raises:
        InvalidSettings: there are not so many processors or GPUs.
    """
    import ray
    import torch
    from ray.util import ActorPool

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    on_gpu = config.device.startswith("cuda")
    there = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
    if workers > there:
        raise InvalidSettings(f"Ray has {there} {'GPUs' if on_gpu else 'processors'}; ask for at most as many workers")
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
    found = _found_from_anywhere(config.model_dump())  # workers start in folders of their own
    config = type(config).model_validate({**found, "out": config.out.resolve()})
    remote = ray.remote(num_cpus=cores, num_gpus=int(on_gpu))(_RemoteWorker)
    pool = ActorPool([remote.remote(config, torch.get_num_threads()) for _ in range(workers)])
    for _ in pool.map_unordered(_start, list(batches)):
        pass


def _found_from_anywhere(values: Any) -> Any:
    """The values of a configuration, with the paths that exist made absolute."""
    if isinstance(values, dict):
        return {name: _found_from_anywhere(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_found_from_anywhere(value) for value in values]
    return absolute(values) if isinstance(values, str | Path) and str(values) else values


class _RemoteWorker:
    def __init__(self, config: EvaluationConfig, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)  # the number decides about the last bits, and is part of the cache's keys
        self.worker = worker_for(config)

    def draw_and_measure(self, batch: Batch) -> None:
        self.worker.draw_and_measure(*batch)


def _start(actor: Any, batch: Batch) -> Any:
    return actor.draw_and_measure.remote(batch)
