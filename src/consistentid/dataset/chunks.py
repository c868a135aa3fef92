"""One chunk of items -> one file of results; done again after a kill, item by item when its first attempt died."""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from consistentid.dataset.plan import Plan
from consistentid.dataset.schema import SCHEMA
from consistentid.dataset.shards import shard_writer
from consistentid.dataset.sources import Item
from consistentid.dataset.stages import Outcome, Rejected, Stages

MakeStages = Callable[[], Stages]

# A record's columns, empty where the item was rejected, and which rule it broke.
CHUNK_SCHEMA = pa.schema([
    *(field.with_nullable(True) for field in SCHEMA),
    pa.field("rule", pa.string()),
    pa.field("reason", pa.string()),
])  # fmt: skip
_ATTEMPTS = 2  # whoever kills processes at random rarely hits the same photo twice


class ChunkWorker:
    """Does chunks one after the other, with models that are loaded once.

    A file marks that a chunk was begun. When the mark is there already, an earlier attempt was killed, perhaps by one
    of the photos; then each item is done in a process of its own, and one that kills it twice is rejected.

    Args:
        plan: the build.
        make_stages: called here or in a process of its own; picklable.
        ready: the stages, when they are here already.
    """

    def __init__(self, plan: Plan, make_stages: MakeStages, *, ready: Stages | None = None) -> None:
        self.plan = plan
        self._make_stages = make_stages
        self._ready = ready

    def run(self, index: int) -> int:
        """Do a chunk if it is not done; returns how many items it has."""
        target, mark = self.plan.result_of(index), self.plan.mark_of(index)
        if not target.is_file():
            items, was_killed = self.plan.items_of(index), mark.is_file()
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            _write(_run_isolated(items, self._make_stages) if was_killed else self._stages.run(items), target)
        mark.unlink(missing_ok=True)
        return self.plan.size_of(index)

    @property
    def _stages(self) -> Stages:
        if self._ready is None:
            self._ready = self._make_stages()
        return self._ready


def _write(outcomes: list[Outcome], target: Path) -> None:
    rows = [vars(each) if isinstance(each, Rejected) else each.model_dump() for each in outcomes]
    with shard_writer(target, CHUNK_SCHEMA) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA))


def _run_isolated(items: list[Item], stages: MakeStages) -> list[Outcome]:
    worker, outcomes = _Worker(stages), []
    try:
        for item in items:
            for _ in range(_ATTEMPTS):
                outcome = worker.run(item)
                if outcome is not None:
                    break
                died = worker.exit_code
                worker.close()
                worker = _Worker(stages)
            else:
                reason = f"it ends the process that reads it (exit code {died})"
                outcome = Rejected(item.source, item.origin, "crashed", reason)
            outcomes.append(outcome)
    finally:
        worker.close()
    return outcomes


class _Worker:
    """A process that runs the stages for one item at a time, and may die of it."""

    def __init__(self, stages: MakeStages) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, stages), daemon=True)
        self._process.start()
        other.close()  # so that its death is noticed, and ours by it

    def run(self, item: Item) -> Outcome | None:
        """What becomes of an item; None: the process died.

        Raises:
            ConsistentIDError: the stages cannot be run at all.
        """
        try:
            self._connection.send(item)
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def exit_code(self) -> int | None:
        """How the process ended; negative: by which signal."""
        return self._process.exitcode

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()


def _serve(connection: "Connection[Any, Any]", stages: MakeStages) -> None:
    """Answer until the other side is closed or dies."""
    try:
        ready = stages()
        while True:
            item = connection.recv()
            connection.send(ready.run([item])[0])
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001  raised again on the other side
        connection.send(error)
