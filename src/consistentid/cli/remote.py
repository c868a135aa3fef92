"""`consistentid generate --server`: the portraits are made by a server, and saved here."""

import os
import sys
from pathlib import Path

from consistentid.cli.actions import output_paths
from consistentid.cli.options import OtherPhotos
from consistentid.errors import InvalidSettings, UnreadableImage
from consistentid.generation.settings import GenerationSettings

KEY_VARIABLE = "CONSISTENTID_API_KEY"


def make_there(
    server: str, photo: Path, prompt: str, *, settings: GenerationSettings, others: OtherPhotos, out: Path | None
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

    from consistentid.generation.portrait import write_bytes
    from consistentid.web.client import Client

    if others.beside:
        raise InvalidSettings("a server draws one person in a picture; leave out --beside or --server")
    paths = output_paths(out, count=settings.num_images)
    if paths[0].suffix.lower() != ".png":
        raise InvalidSettings(f"{paths[0].name}: a server gives PNG files; choose a name that ends in .png")
    for each in (photo, *others.parts.values(), *others.same, *filter(None, [others.blend_with])):
        if not each.is_file():
            raise UnreadableImage(f"{each} does not exist; check the path")
    withheld = 0
    with Client(server, api_key=os.environ.get(KEY_VARIABLE)) as client:
        job = client.submit(
            photo,
            prompt,
            settings=settings,
            parts=others.parts,
            blend_with=others.blend_with,
            same=others.same,
        )
        try:
            with tqdm(unit="step", desc="portraits", disable=not sys.stderr.isatty(), leave=False) as bar:
                for event in client.follow(job.id):
                    bar.total = event.steps or None
                    bar.update(event.step - bar.n)
            images = client.images(client.wait(job.id))
        finally:
            client.delete(job.id)
    for path, content in zip(paths, images, strict=True):
        if content is None:
            withheld += 1
            sys.stderr.write(f"consistentid: {path.name} was withheld by the safety checker; try another seed\n")
        else:
            write_bytes(path, content)
            print(path)
    return 1 if withheld else 0
