"""Who does the chunks of a build: this process, or actors of Ray Data, which may be on other machines."""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from consistentid.dataset.chunks import MakeStages, run_chunk
from consistentid.dataset.plan import Plan
from consistentid.errors import InvalidSettings


class RayOptions(BaseModel):
    """How Ray is used; nothing of it changes what the dataset holds.

    Attributes:
        address: of a running cluster, whose machines share the folders of sources and dataset; None: this machine.
        workers: actors, each with all models; by default one for every core.
        gpus: of each actor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = None
    workers: int | None = Field(default=None, gt=0)
    gpus: float = Field(default=0, ge=0)


def run_here(plan: Plan, stages: MakeStages) -> Iterator[int]:
    """Do every unfinished chunk in this process; yields how many items each had."""
    once = cache(stages)
    for index in plan.unfinished:
        yield run_chunk(plan, index, once)


def run_on_ray(plan: Plan, stages: MakeStages, options: RayOptions) -> Iterator[int]:
    """Do every unfinished chunk on actors; yields how many items each had, as they are finished.

    Ray starts an actor anew when a photo kills it, and gives it the same chunk again.

    Raises:
        InvalidSettings: Ray is not installed.
    """
    unfinished = plan.unfinished
    if not unfinished:
        return
    ray = _connected(options)
    workers = options.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    chunks = ray.data.from_items([{"index": index} for index in unfinished], override_num_blocks=len(unfinished))
    done = chunks.map_batches(
        _ChunkActor,
        fn_constructor_kwargs={"plan": plan, "stages": stages},
        batch_size=1,
        num_cpus=1,
        num_gpus=options.gpus or None,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(unfinished))),
    )
    for row in done.iter_rows():
        yield int(row["items"])


def _connected(options: RayOptions) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InvalidSettings("Ray is not installed: pip install 'consistentid[data]'") from error
    if not ray.is_initialized():
        cores = None if options.address else options.workers
        ray.init(
            address=options.address, num_cpus=cores, include_dashboard=False, logging_level=logging.ERROR,
            log_to_driver=False,
        )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


class _ChunkActor:
    """Holds the models and does chunks."""

    def __init__(self, plan: Plan, stages: MakeStages) -> None:
        self.plan = plan
        self.stages = cache(stages)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        return {"items": [run_chunk(self.plan, int(index), self.stages) for index in batch["index"]]}
