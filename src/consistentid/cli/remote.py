"""`consistentid generate --server`: the portraits are made by a server, and saved here."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from consistentid.cli.actions import output_paths
from consistentid.cli.options import Manner, OtherPhotos, TaskInputs
from consistentid.errors import InvalidSettings, UnreadableImage
from consistentid.generation.settings import GenerationSettings

KEY_VARIABLE = "CONSISTENTID_API_KEY"


def make_there(
    server: str,
    photo: Path,
    prompt: str,
    *,
    settings: GenerationSettings,
    others: OtherPhotos,
    work: TaskInputs,
    manner: Manner,
    out: Path | None,
) -> int:
    """Portraits of one photo, made by a server; 1 when its safety checker withheld any. Nothing stays there.

    Raises:
        ServerRefused: it does not answer, or refuses.
        UnreadableImage: a photo is missing.
    """
    from importlib.util import find_spec

    if find_spec("pydantic_settings") is None:
        raise InvalidSettings("--server needs the extra web, which is not installed: pip install 'consistentid[web]'")
    from tqdm import tqdm

    from consistentid.generation.places import with_masks
    from consistentid.web.client import Client

    paths = output_paths(out, count=settings.num_images)
    if paths[0].suffix.lower() != ".png":
        raise InvalidSettings(f"{paths[0].name}: a server gives PNG files; choose a name that ends in .png")
    task, pictures = _task(work)
    if manner.into is not None:
        pictures["into"] = manner.into
    if manner.into_face is not None:
        task["into_face"] = manner.into_face
    photos = {**vars(others), **pictures}
    _check_there([photo, *others.parts.values(), *others.same, *others.beside, others.blend_with, *pictures.values()])
    settings = settings.model_copy(update={"places": with_masks(settings.places)}) if settings.places else settings
    with Client(server, api_key=os.environ.get(KEY_VARIABLE)) as client:
        job = client.submit(photo, prompt, settings=settings, **photos, **task)
        try:
            with tqdm(unit="step", desc="portraits", disable=not sys.stderr.isatty(), leave=False) as bar:
                for event in client.follow(job.id):
                    bar.total = event.steps or None
                    bar.update(event.step - bar.n)
            images = client.images(client.wait(job.id))
        finally:
            client.delete(job.id)
    return _write(paths, images)


def _check_there(files: Iterable[Path | None]) -> None:
    for each in files:
        if each is not None and not each.is_file():
            raise UnreadableImage(f"{each} does not exist; check the path")


def _write(paths: Sequence[Path], images: Sequence[bytes | None]) -> int:
    """Write what was not withheld; 1 when something was."""
    from consistentid.generation.portrait import write_bytes

    for path, content in zip(paths, images, strict=True):
        if content is None:
            sys.stderr.write(f"consistentid: {path.name} was withheld by the safety checker; try another seed\n")
        else:
            write_bytes(path, content)
            print(path)
    return int(None in images)


def _task(work: TaskInputs) -> tuple[dict[str, Any], dict[str, Path]]:
    """What the request says of a task, and its pictures by their role.

    Raises:
        InvalidSettings: it is one that needs networks of its own.
    """
    from consistentid.cli.task_inputs import task_of
    from consistentid.generation.masks import MASK_NAMES
    from consistentid.generation.tasks import task_named

    name = task_of(work)
    if task_named(name).components:
        raise InvalidSettings(f"a server does not make --task {name}; leave it or --server out")
    named = work.mask in MASK_NAMES
    said = {
        "task": name,
        "strength": work.strength,
        "mask": work.mask if named else None,
        "mask_feather": work.mask_feather,
        "mask_match": work.mask_match or None,
    }
    pictures = {"image": work.image, "mask_image": None if named or work.mask is None else Path(work.mask)}
    return (
        {key: value for key, value in said.items() if value is not None},
        {role: path for role, path in pictures.items() if path is not None},
    )
