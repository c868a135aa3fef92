"""A portrait: the picture, and the record that makes it again, kept together in one file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jaxtyping import Float
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from consistentid.errors import InvalidSettings, NotReproducible, UnreadableImage
from consistentid.generation.settings import PortraitSettings, explain
from consistentid.trust.marking import About, Marking
from consistentid.trust.provenance import kind_of_file, read_record


@dataclass(frozen=True)
class Portrait:
    """One generated picture.

    Attributes:
        settings: everything needed to make it again.
        picture: RGB, or None when latents were asked for.
        latents: (c, h, w) final latents, when they were asked for.
        withheld: a check of the picture blacked it.
        marking: how its file is marked.
        edited: the picture that was changed, as file content or in memory; None when this one is new.
    """

    settings: PortraitSettings
    picture: Image.Image | None = None
    latents: Float[Tensor, "c h w"] | None = None
    withheld: bool = False
    marking: Marking = field(default_factory=Marking)
    edited: bytes | Image.Image | None = None

    @property
    def image(self) -> Image.Image:
        """The picture.

        Raises:
            InvalidSettings: latents were asked for instead.
        """
        if self.picture is None:
            raise InvalidSettings('this portrait was left as latents; generate it with output_type="pil" for a picture')
        return self.picture

    def save(self, path: str | Path) -> Path:
        """Write a file with the record, its provenance and a signature; it appears complete or not at all.

        Args:
            path: ends in .png, .jpg or .webp; JPEG changes the pixels.

        Raises:
            InvalidSettings: the name ends otherwise, or the folder cannot be written to.
        """
        settings, private = self.settings, self.marking.private
        record = json.dumps(settings.public(texts=False)) if private else settings.model_dump_json()
        about = About(
            settings.versions.get("consistentid", ""),
            settings.consent,
            record=record,
            generation=settings.public(texts=not private),
            edited=self.edited,
        )
        content = save_generated(self.image, path, about=about, marking=self.marking)
        if self.marking.audit is not None:
            self.marking.audit.note(
                "saved",
                {**audit_facts(settings), "file_sha256": hashlib.sha256(content).hexdigest()},
                personal={"prompt": settings.prompt, "photo": settings.photo, "file": str(path)},
            )
        return Path(path)


def save_generated(image: Image.Image, path: str | Path, *, about: About, marking: Marking) -> bytes:
    """Write a picture that says it was made by a model; the file appears complete or not at all.

    Args:
        image: RGB.
        path: ends in .png, .jpg or .webp.
        about: what the file says.
        marking: how.

    Returns:
        The content of the file.

    Raises:
        InvalidSettings: the name ends otherwise, or the folder cannot be written to.
    """
    content = marking.file(image, kind_of_file(Path(path)), about)
    write_bytes(Path(path), content)
    return content


def about_several(portraits: Sequence[Portrait]) -> About:
    """What a picture says that shows several portraits of one session."""
    first = portraits[0].settings
    return About(first.versions.get("consistentid", ""), first.consent)


def audit_facts(settings: PortraitSettings) -> dict[str, object]:
    """What an audit log tells of a portrait: model and settings, nothing of people."""
    told = settings.public(texts=False)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return {
        "model": told["model"],
        "weights_sha256": settings.weights_sha256,
        "settings_sha256": digest,
        "policy": "accepted",
        "consent": settings.consent,
    }


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG that appears complete or not at all, of a picture that no model made.

    Raises:
        InvalidSettings: the folder cannot be made or written to.
    """
    with _appearing(path) as file:
        image.save(file, format="PNG")


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears complete or not at all.

    Raises:
        InvalidSettings: the folder cannot be made or written to.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all.

    Raises:
        InvalidSettings: the folder cannot be made or written to.
    """
    with _appearing(path) as file:
        file.write(content)


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file open for writing that gets its name when the block ends well."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            yield file
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise InvalidSettings(f"cannot write {path}: {error.strerror or error}; choose another place") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_settings(path: str | Path) -> PortraitSettings:
    """The record inside a portrait's file.

    Raises:
        UnreadableImage: the file is missing or no image.
        NotReproducible: the image carries no record, or one that this version cannot read.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            text = read_record(image)
    except FileNotFoundError:
        raise UnreadableImage(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path} cannot be read as an image ({error})") from None
    if text is None:
        raise NotReproducible(f"{path.name} carries no record of how it was made; only portraits saved by this tool do")
    try:
        return PortraitSettings.model_validate_json(text)
    except ValidationError as error:
        if any(problem["type"] == "missing" and problem["loc"] == ("prompt",) for problem in error.errors()):
            raise NotReproducible(f"{path.name} was saved without its prompt, so it cannot make it again") from None
        raise NotReproducible(f"the record in {path.name} cannot be read: {explain(error)}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
