"""The results of all chunks -> copies left out, people named -> the finished dataset."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consistentid.dataset.duplicates import near_duplicates
from consistentid.dataset.files import appearing, sha256
from consistentid.dataset.likeness import likeness_of
from consistentid.dataset.manifest import ShardFile
from consistentid.dataset.people import cluster
from consistentid.dataset.plan import Plan
from consistentid.dataset.schema import SCHEMA
from consistentid.dataset.shards import ROW_GROUP, shard_writer

REJECTED_NAME = "rejected.jsonl"
_SMALL = (
    "id", "source", "origin", "width", "height", "person", "perceptual_hash", "identity_embedding", "rule", "reason",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fates:
    """What becomes of every item, by its place in the sources' order.

    Attributes:
        table: the small columns of all items.
        accepted: places of the records of the dataset.
        copy_of: place of a copy -> place of the record it is a copy of.
        people: of each accepted record.
    """

    table: pa.Table
    accepted: list[int]
    copy_of: dict[int, int]
    people: list[str]

    @property
    def rejected(self) -> dict[str, int]:
        """How many items break each rule."""
        return dict(sorted(Counter(rule for rule in self.table["rule"].to_pylist() if rule).items()))


def decide(plan: Plan, recogniser: str, *, near: bool) -> Fates:
    """Find copies and people by the small columns of all chunks.

    Of several copies the one with most pixels is kept, and of equals the first.

    Args:
        plan: a build whose chunks are all done.
        recogniser: name of the detector.
        near: leave out near copies too.
    """
    paths = (plan.result_of(index) for index in range(len(plan.starts)))
    table = pa.concat_tables(pq.read_table(path, columns=list(_SMALL), use_threads=False) for path in paths)
    good = np.flatnonzero(table["rule"].is_null().to_numpy())
    pixels = pc.multiply(table["width"], table["height"]).take(good).to_numpy()
    best_first = good[np.argsort(-pixels, kind="stable")]
    candidates = table.take(best_first)
    if near:
        copies = near_duplicates(
            candidates["perceptual_hash"].to_pylist(),
            _embeddings(candidates),
            embedding=likeness_of(recogniser).copy,
        )
    else:
        copies = _same_files(candidates["id"].to_pylist())
    copy_of = {int(best_first[copy]): int(best_first[kept]) for copy, kept in copies.items()}
    accepted = [place for place in good.tolist() if place not in copy_of]
    rows = table.take(pa.array(accepted, pa.int64()))
    stated = [name or None for name in rows["person"].to_pylist()]
    people = cluster(_embeddings(rows), stated, ids=rows["id"].to_pylist(), recogniser=recogniser) if accepted else []
    return Fates(table, accepted, copy_of, people)


def _embeddings(table: pa.Table) -> np.ndarray:
    column = table["identity_embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1) if len(column) else np.zeros((0, 1), np.float32)


def _same_files(ids: Sequence[str]) -> dict[int, int]:
    first: dict[str, int] = {}
    places = [first.setdefault(name, place) for place, name in enumerate(ids)]
    return {place: kept for place, kept in enumerate(places) if place != kept}


def write_shards(plan: Plan, fates: Fates, folder: Path, *, rows: int) -> tuple[ShardFile, ...]:
    """Write the accepted records, in the sources' order, to files of so many rows; one row group is held in memory."""
    count = -(-len(fates.accepted) // rows)
    records = _records(plan, fates)
    waiting = next(records, None)
    shards = []
    for index in range(count):
        name = f"data/train-{index:05d}-of-{count:05d}.parquet"  # as `datasets.load_dataset` looks for
        with shard_writer(folder / name) as writer:
            while waiting is not None and writer.rows < rows:
                room = rows - writer.rows
                writer.write(waiting.slice(0, room))
                waiting = waiting.slice(room) if waiting.num_rows > room else next(records, None)
            written = writer.rows
        path = folder / name
        shards.append(ShardFile(name=name, rows=written, bytes=path.stat().st_size, sha256=sha256(path)))
    return tuple(shards)


def _records(plan: Plan, fates: Fates) -> Iterator[pa.Table]:
    """The accepted records with their people, a part of a chunk at a time."""
    people = dict(zip(fates.accepted, fates.people, strict=True))
    first = 0
    for index in range(len(plan.starts)):
        with pq.ParquetFile(plan.result_of(index)) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=SCHEMA.names, use_threads=False):
                places = [first + row for row in range(batch.num_rows)]
                kept = [row for row, place in enumerate(places) if place in people]
                first += batch.num_rows
                if kept:
                    table = pa.Table.from_batches([batch]).take(kept)
                    names = pa.array([people[places[row]] for row in kept], pa.string())
                    yield table.set_column(SCHEMA.get_field_index("person"), "person", names).cast(SCHEMA)


def write_rejected(fates: Fates, path: Path) -> None:
    """Write every item that is no record, with the rule it breaks, in the sources' order."""
    table = fates.table.select(["source", "origin", "rule", "reason"]).to_pylist()
    with appearing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for place, row in enumerate(table):
            if place in fates.copy_of:
                kept = table[fates.copy_of[place]]
                row |= {"rule": "duplicate", "reason": f"a copy of {kept['origin']} of {kept['source']}"}
            if row["rule"]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
