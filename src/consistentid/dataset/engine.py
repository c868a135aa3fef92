"""Who does the chunks of a build: this process, or actors of Ray Data, which may be on other machines."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from consistentid.dataset.chunks import ChunkWorker, MakeStages
from consistentid.dataset.plan import Plan
from consistentid.errors import ConsistentIDError, InvalidSettings


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


def run_here(worker: ChunkWorker) -> Iterator[int]:
    """Do every unfinished chunk in this process; yields how many items each had."""
    for index in worker.plan.unfinished:
        yield worker.run(index)


def run_on_ray(plan: Plan, stages: MakeStages, options: RayOptions) -> Iterator[int]:
    """Do every unfinished chunk on actors; yields how many items each had, as they are finished.

    Ray starts an actor anew when a photo kills it, and gives it the same chunk again.

    Raises:
        InvalidSettings: Ray is not installed.
        ConsistentIDError: a worker cannot load its models.
    """
    unfinished = plan.unfinished
    if unfinished:
        with _connected(options) as ray:
            workers = options.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            chunks = ray.data.from_items(
                [{"index": index} for index in unfinished], override_num_blocks=len(unfinished)
            )
            done = chunks.map_batches(
                _ChunkActor,
                fn_constructor_kwargs={"plan": plan, "stages": stages},
                batch_size=1,
                num_cpus=1,
                num_gpus=options.gpus or None,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(unfinished))),
            )
            for row in done.iter_rows():
                if row["refusal"]:
                    raise ConsistentIDError(row["refusal"])
                yield int(row["items"])


@contextmanager
def _connected(options: RayOptions) -> Iterator[Any]:
    """Ray, started for the block unless it runs in this process already."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InvalidSettings("Ray is not installed: pip install 'consistentid[data]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=options.address,
            num_cpus=None if options.address else options.workers,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


class _ChunkActor:
    """A worker as Ray Data calls it."""

    def __init__(self, plan: Plan, stages: MakeStages) -> None:
        self.worker = ChunkWorker(plan, stages)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do one chunk; a refusal travels as text, because Ray would wrap the error into its own."""
        (index,) = batch["index"]
        try:
            return {"items": [self.worker.run(int(index))], "refusal": [""]}
        except ConsistentIDError as error:
            return {"items": [0], "refusal": [str(error)]}
