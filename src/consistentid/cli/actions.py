"""What `consistentid generate` does, with the heavy libraries loaded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from consistentid.cli.options import Loading, Manner, OtherPhotos, TaskInputs
from consistentid.errors import InvalidSettings
from consistentid.generation.settings import GenerationSettings

if TYPE_CHECKING:
    from consistentid.generation.donors import Donors
    from consistentid.generation.generator import PortraitGenerator
    from consistentid.generation.portrait import Portrait


def make(
    photo: Path,
    prompt: str,
    *,
    settings: GenerationSettings,
    others: OtherPhotos,
    work: TaskInputs,
    manner: Manner,
    out: Path | None,
    sheet: Path | None,
    loading: Loading,
) -> int:
    """Portraits of one photo; 1 when the safety checker withheld any."""
    from consistentid.cli.manners import made, written_sheet
    from consistentid.cli.task_inputs import components_of, inputs_of, task_of
    from consistentid.generation.places import with_masks
    from consistentid.generation.request import GenerationRequest

    settings = settings.model_copy(update={"places": with_masks(settings.places)})
    paths = output_paths(out, count=manner.morph or settings.num_images)
    for picture in (sheet, manner.explain):
        if picture is not None and picture.suffix.lower() != ".png":
            raise InvalidSettings(f"{picture.name}: this picture is saved as .png")
    task = task_of(work)
    inputs = inputs_of(work, task=task, photo=photo)
    generator = generator_of(loading)
    components = components_of(work, dtype=generator.pipeline.unet.dtype, offline=loading.offline)
    request = GenerationRequest(
        photo, prompt, settings, task=task, inputs=inputs, components=components, donors=_donors(others)
    )
    portraits = made(generator, request, manner, loading=loading)
    withheld = _save(portraits, paths)
    if sheet is not None:
        written_sheet(generator, request, portraits, sheet, manner=manner)
        print(sheet)
    return 1 if withheld else 0


def make_again(
    like: Path, *, photo: Path | None, others: OtherPhotos, out: Path | None, sheet: Path | None, loading: Loading
) -> int:
    """The portrait of an earlier file again."""
    from consistentid.generation.portrait import read_settings
    from consistentid.generation.reproduce import reproduce

    if sheet is not None:
        raise InvalidSettings("--like makes one portrait again, without --sheet")
    record = read_settings(like)
    path = output_paths(out or like.with_name(f"{like.stem}_again.png"), count=1)[0]
    generator = generator_of(
        Loading(
            model=record.model,
            adapter=record.adapter,
            device=record.device,
            dtype=record.dtype,  # type: ignore[arg-type]
            offline=loading.offline,
            base_config=loading.base_config or record.base_config,
            lora=loading.lora or record.loras,
            textual_inversion=loading.textual_inversion or record.textual_inversions,
            cache=loading.cache,
            optimisation=record.optimisation,
            image_encoder=loading.image_encoder or record.image_encoder,
            safeguards=loading.safeguards,
        )
    )
    return 1 if _save([reproduce(generator, record, photo=photo, donors=_donors(others))], [path]) else 0


def run_job_file(jobs: Path, *, out: Path | None, loading: Loading) -> int:
    """All jobs of a file; 1 when any was bad."""
    from consistentid.generation.jobs import read_jobs, run_jobs
    from consistentid.trust.provenance import KINDS

    if out is None or out.suffix.lower() in KINDS:
        raise InvalidSettings("--jobs writes many portraits; say where with --out FOLDER")
    good, bad = read_jobs(jobs)
    report = run_jobs(
        generator_of(loading),
        good,
        out=out,
        photos=jobs.parent,
        batch_size=loading.batch_size,
        progress=loading.shows_progress,
    )
    bad = bad + report.bad
    print(f"{len(report.done)} done, {len(report.skipped)} there already, {len(bad)} bad; see {out}")
    for job in bad:
        sys.stderr.write(f"consistentid: {job.name}: {job.reason}\n")
    return 1 if bad else 0


def output_paths(out: Path | None, *, count: int) -> list[Path]:
    """Where `count` portraits go: a file, numbered files, or portrait*.png in a folder.

    Raises:
        InvalidSettings: the name has a suffix of another kind of file.
    """
    from consistentid.trust.provenance import kind_of_file

    target = Path("portrait.png") if out is None else out
    if target.is_dir() or not target.suffix:
        target = target / "portrait.png"
    kind_of_file(target)
    if count == 1:
        return [target]
    return [target.with_name(f"{target.stem}_{k}{target.suffix}") for k in range(count)]


def _donors(others: OtherPhotos) -> "Donors":
    from consistentid.generation.donors import Donors

    return Donors(dict(others.parts), others.blend_with, others.same, others.beside)


def generator_of(loading: Loading) -> "PortraitGenerator":
    """The generator that the options ask for.

    Raises:
        WeightsNotFound: weights are missing, or do not fit each other.
    """
    from consistentid.generation.generator import PortraitGenerator
    from consistentid.trust.safeguards import Safeguards

    return PortraitGenerator.from_pretrained(
        loading.model or "embedded",
        adapter=loading.adapter,
        device=loading.device,
        dtype=loading.dtype,
        offline=loading.offline,
        base_config=loading.base_config,
        loras=loading.lora,
        textual_inversions=loading.textual_inversion,
        cache=loading.cache,
        optimisation=loading.optimisation,
        image_encoder=loading.image_encoder,
        safeguards=Safeguards.configured(**loading.safeguards.model_dump(exclude_unset=True)),
    )


def _save(portraits: "list[Portrait]", paths: list[Path]) -> int:
    """Write pictures, say where; how many the safety checker withheld, which are not written."""
    withheld = 0
    for portrait, path in zip(portraits, paths, strict=True):
        if portrait.withheld:
            withheld += 1
            sys.stderr.write(f"consistentid: {path.name} was withheld by a check of the picture; try another seed\n")
        else:
            print(portrait.save(path))
    return withheld
