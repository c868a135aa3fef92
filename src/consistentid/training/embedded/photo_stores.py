"""The stores of a selection of photos: made once in a folder, by several processes."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from consistentid.dataset.selection import Selection
from consistentid.faces.parsing import SegformerParser
from consistentid.training.embedded import store
from consistentid.training.embedded.composites import with_composites
from consistentid.training.embedded.config import StoreConfig

_CHUNK = 50  # photos

Stored = TypeVar("Stored", store.Targets, store.References)


def targets_in(folder: Path, records: Selection, sizes: StoreConfig) -> store.Targets:
    """What is drawn."""
    file = folder / "targets.safetensors"
    if not file.is_file():
        targets = _made(partial(store.build_targets, variants=sizes.target_variants, seed=0), records, sizes.processes)
        store.save(with_composites(targets, variants=sizes.composite_variants, seed=0), file)
    return store.load_targets(file)


def references_in(
    folder: Path, records: Selection, sizes: StoreConfig, *, parser: SegformerParser, parser_crc: int
) -> store.References:
    """Of whom; another parser cuts regions out otherwise, so it has its own file."""
    file = folder / f"references-{parser_crc:08x}.safetensors"
    if not file.is_file():
        donors = store.Donors.choose(records)
        refer = partial(store.build_references, variants=sizes.reference_variants, seed=0, donors=donors, parser=parser)
        store.save(_made(refer, records, sizes.processes), file)
    return store.load_references(file)


def _made(make: Callable[[int, Selection], Stored], records: Selection, processes: int) -> Stored:
    starts = range(0, len(records), _CHUNK)
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return store.joined(list(pool.map(make, starts, [records.part(start, _CHUNK) for start in starts])))
