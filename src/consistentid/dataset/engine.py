"""Chunks of work on actors of Ray Data, which may be on other machines."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from consistentid.errors import ConsistentIDError, InvalidSettings

Worker = Callable[[int], int]  # does a chunk and says how many items it had
MakeWorker = Callable[[], Worker]


class RayOptions(BaseModel):
    """How Ray is used; nothing of it changes the results.

    Attributes:
        address: of a running cluster, whose machines share all folders; None: this machine.
        workers: actors, each with all models; by default one for every core.
        gpus: of each actor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = None
    workers: int | None = Field(default=None, gt=0)
    gpus: float = Field(default=0, ge=0)


def run_on_ray(make_worker: MakeWorker, chunks: Sequence[int], options: RayOptions) -> Iterator[int]:
    """Do chunks on actors, each with a worker of its own.

    Ray starts an actor anew when a chunk kills it, and gives it the same chunk again.

    Args:
        make_worker: picklable; makes what does a chunk and returns how many items it had.
        chunks: their numbers.
        options: how Ray is used.

    Yields:
        What the worker returned, for each chunk, as they are finished.

    Raises:
        InvalidSettings: Ray is not installed.
        ConsistentIDError: a worker cannot load its models.
    """
    if chunks:
        with _connected(options) as ray:
            workers = options.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            numbers = ray.data.from_items([{"chunk": chunk} for chunk in chunks], override_num_blocks=len(chunks))
            done = numbers.map_batches(
                _Actor,
                fn_constructor_kwargs={"make_worker": make_worker},
                batch_size=1,
                num_cpus=1,
                num_gpus=options.gpus or None,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(chunks))),
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


class _Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, make_worker: MakeWorker) -> None:
        self.make_worker = make_worker

    @cached_property
    def worker(self) -> Worker:
        """Made for the first chunk, so that a refusal can be told."""
        return self.make_worker()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do one chunk; a refusal travels as text, because Ray would wrap the error into its own."""
        (chunk,) = batch["chunk"]
        try:
            return {"items": [self.worker(int(chunk))], "refusal": [""]}
        except ConsistentIDError as error:
            return {"items": [0], "refusal": [str(error)]}
