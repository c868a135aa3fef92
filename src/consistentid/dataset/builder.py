"""Sources -> a finished dataset: list, do the chunks, decide what is a copy and who is who, write, publish."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from consistentid.dataset.assemble import REJECTED_NAME, decide, write_rejected, write_shards
from consistentid.dataset.card import write_card
from consistentid.dataset.chunks import ChunkWorker, MakeStages
from consistentid.dataset.engine import RayOptions, Worker, run_on_ray
from consistentid.dataset.likeness import likeness_of
from consistentid.dataset.manifest import MANIFEST_NAME, Counts, Manifest, this_version
from consistentid.dataset.plan import Plan, fingerprint_of, make_plan
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.stages import Stages
from consistentid.errors import InvalidData

logger = logging.getLogger(__name__)

_WORK = ".work"


def build_dataset(
    sources: Sequence[Path],
    out: Path,
    *,
    settings: BuildSettings,
    ray: RayOptions | None = None,
    stages: MakeStages | None = None,
    progress: bool = False,
) -> Manifest:
    """Build a dataset; a build that was killed goes on where it was, and a finished one is left as it is.

    Args:
        sources: folders, lists, tars, tables or lists of the released FGID; see `sources`.
        out: gets `data/*.parquet`, `manifest.json`, `rejected.jsonl` and the card. Until then everything is in its
            `.work`.
        settings: what the dataset holds.
        ray: run on Ray; None: in this process. The dataset is the same.
        stages: other models than those that the settings name; must be picklable for Ray.
        progress: show a bar.

    Raises:
        InvalidData: a source is malformed, no photo is usable, or `out` is of another build.
        InvalidSettings: a model has an unknown name, or Ray is missing.
        WeightsNotFound: a model's files are missing.
    """
    work = out / _WORK
    make = partial(Stages.of, settings) if stages is None else stages
    models = make()  # refuses early what no worker could load
    likeness_of(models.detector.name)
    plan = make_plan(sources, work, settings, known=_known(out))
    if (out / MANIFEST_NAME).is_file():
        shutil.rmtree(work)
        return Manifest.read(out)
    if ray is None:
        chunks: Iterator[int] = map(ChunkWorker(plan, make, ready=models).run, plan.unfinished)
    else:
        chunks = run_on_ray(partial(_worker, plan, make), plan.unfinished, ray)
    _watch(plan, chunks, progress=progress)
    final = work / "final"
    shutil.rmtree(final, ignore_errors=True)
    manifest = _assemble(plan, sources, models, settings, final)
    _publish(final, out)
    shutil.rmtree(work)
    return manifest


def _worker(plan: Plan, make: MakeStages) -> Worker:
    return ChunkWorker(plan, make).run


def _known(out: Path) -> str | None:
    """The fingerprint of the build that a folder holds, finished or not; None: it holds none.

    Raises:
        InvalidData: it holds something else.
    """
    if (out / MANIFEST_NAME).is_file():
        return Manifest.read(out).fingerprint
    if out.is_dir() and any(out.iterdir()) and not (out / _WORK).is_dir():
        raise InvalidData(f"{out} is not empty and holds no dataset; name a new folder")
    return fingerprint_of(out / _WORK)


def _watch(plan: Plan, chunks: Iterator[int], *, progress: bool) -> None:
    if plan.ignored:
        logger.warning("%d files are no photos by their names and are left out", plan.ignored)
    done = plan.items - sum(plan.size_of(index) for index in plan.unfinished)
    with tqdm(total=plan.items, initial=done, unit="photo", desc="building", disable=not progress) as bar:
        for count in chunks:
            bar.update(count)


def _assemble(plan: Plan, sources: Sequence[Path], models: Stages, settings: BuildSettings, folder: Path) -> Manifest:
    fates = decide(plan, models.detector.name, near=settings.near_duplicates)
    write_rejected(fates, folder / REJECTED_NAME)
    if not fates.accepted:
        shutil.copy(folder / REJECTED_NAME, folder.parents[1])
        rules = ", ".join(f"{rule}: {count}" for rule, count in fates.rejected.items()) or "there is none"
        raise InvalidData(f"no usable photo ({rules}); {folder.parents[1] / REJECTED_NAME} says why for each")
    manifest = Manifest(
        made_by=this_version(),
        sources=tuple(source.name for source in sources),
        fingerprint=plan.fingerprint,
        settings=settings.model_dump(mode="json"),
        recogniser=models.detector.name,
        identity_dim=models.detector.embedding_dim,
        parser=models.parser.name,
        captioner=models.captioner.name,
        counts=Counts(
            items=plan.items,
            accepted=len(fates.accepted),
            rejected=fates.rejected,
            duplicates=len(fates.copy_of),
            ignored=plan.ignored,
        ),
        people=len(set(fates.people)),
        shards=write_shards(plan, fates, folder, rows=settings.shard_rows),
    )
    manifest.write(folder)
    write_card(folder)
    return manifest


def _publish(final: Path, out: Path) -> None:
    """Move everything to its place, the manifest last: with it the dataset is finished."""
    files = sorted(path.relative_to(final) for path in final.rglob("*") if path.is_file())
    for name in sorted(files, key=lambda name: name.name == MANIFEST_NAME):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(final / name, out / name)
