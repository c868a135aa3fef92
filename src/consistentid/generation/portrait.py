"""A portrait: the picture, and the record that makes it again, kept together in one PNG."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jaxtyping import Float
from PIL import Image, PngImagePlugin
from pydantic import ValidationError
from torch import Tensor

from consistentid.errors import InvalidSettings, NotReproducible, UnreadableImage
from consistentid.generation.settings import PortraitSettings, explain
from consistentid.trust.provenance import XMP_KEYWORD, xmp_packet

TEXT_KEY = "consistentid"  # keyword of the PNG text chunk that holds the record as JSON


@dataclass(frozen=True)
class Portrait:
    """One generated picture.

    Attributes:
        settings: everything needed to make it again.
        picture: RGB, or None when latents were asked for.
        latents: (c, h, w) final latents, when they were asked for.
        withheld: the model's safety checker blacked the picture.
    """

    settings: PortraitSettings
    picture: Image.Image | None = None
    latents: Float[Tensor, "c h w"] | None = None
    withheld: bool = False

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
        """Write a PNG with the record and its provenance; the file appears complete or not at all.

        Raises:
            InvalidSettings: the name does not end in .png, or the folder cannot be written to.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InvalidSettings(f"{path.name}: portraits are saved as .png, which carries their record")
        info = generated_info(self.settings.versions)
        info.add_itxt(TEXT_KEY, self.settings.model_dump_json())
        save_png(self.image, path, info=info)
        return path


def generated_info(versions: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """PNG metadata that says the picture was made by a model of this package."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(XMP_KEYWORD, xmp_packet(tool=f"consistentid {versions.get('consistentid', '')}"))
    return info


def save_png(image: Image.Image, path: Path, *, info: PngImagePlugin.PngInfo | None = None) -> None:
    """Write a PNG that appears complete or not at all.

    Raises:
        InvalidSettings: the folder cannot be made or written to.
    """
    with _appearing(path) as file:
        image.save(file, format="PNG", pnginfo=info)


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
    """The record inside a portrait's PNG.

    Raises:
        UnreadableImage: the file is missing or no image.
        NotReproducible: the image carries no record, or one that this version cannot read.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(TEXT_KEY)
    except FileNotFoundError:
        raise UnreadableImage(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path} cannot be read as an image ({error})") from None
    if text is None:
        raise NotReproducible(f"{path.name} carries no record of how it was made; only portraits saved by this tool do")
    try:
        return PortraitSettings.model_validate_json(text)
    except ValidationError as error:
        raise NotReproducible(f"the record in {path.name} cannot be read: {explain(error)}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
