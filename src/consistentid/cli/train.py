"""`consistentid train`."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from consistentid.errors import ConsistentIDError, InvalidData, InvalidSettings

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

_PROMPT = "a portrait photo of a person"
_PEOPLE = 3  # on a validation sheet, four portraits each


def train(
    config: Path, /, *, photos: Path | None = None, out: Path | None = None, validate: list[Path] | None = None
) -> int:
    """Train what a configuration file describes; an interrupted run goes on where it stopped.

    Args:
        config: YAML file, for example configs/embedded.yaml.
        photos: folder of photos, instead of the one in the configuration.
        out: folder of the results, instead of the one in the configuration.
        validate: photos of people to make portraits of while training; by default the first of the folder.
    """
    if find_spec("yaml") is None:
        raise InvalidSettings("training needs pyyaml, which is not installed: pip install 'consistentid[train]'")
    if not config.is_file():
        raise InvalidData(f"{config} does not exist; configs/embedded.yaml is an example")
    from consistentid.training.run import load_config, run

    people = validate or _first_photos(photos or load_config(config).photos)
    print(run(config, photos=photos, out=out, portraits=lambda folder: validation_sheet(folder, people)))
    return 0


def validation_sheet(folder: Path, people: list[Path]) -> "Image.Image":
    """Portraits of some people by the model in a folder, one sheet below the other."""
    from PIL import Image

    from consistentid.generation.generator import PortraitGenerator
    from consistentid.generation.request import GenerationRequest
    from consistentid.generation.settings import GenerationSettings
    from consistentid.generation.sheet import sheet

    generator = PortraitGenerator.from_pretrained(folder, offline=True)
    sheets = []
    for photo in people:
        try:
            prepared = generator.prepare(GenerationRequest(photo, _PROMPT, GenerationSettings(num_images=4)))
        except ConsistentIDError as error:
            logger.warning("no validation portraits of %s: %s", photo.name, error)
            continue
        sheets.append(sheet(prepared.analysis, generator.render([prepared])[0]))
    size = (max((each.width for each in sheets), default=1), sum(each.height for each in sheets) or 1)
    whole, top = Image.new("RGB", size, "white"), 0
    for each in sheets:
        whole.paste(each, (0, top))
        top += each.height
    return whole


def _first_photos(folder: Path | None) -> list[Path]:
    from consistentid.dataset.build import photo_files

    return [] if folder is None else photo_files(folder)[:_PEOPLE]
