"""`consistentid train CONFIG.yaml`: read the configuration and start what it describes."""

from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image
from pydantic import ValidationError

from consistentid.errors import InvalidData
from consistentid.training.embedded.config import EmbeddedConfig


def load_config(path: Path) -> EmbeddedConfig:
    """Read and check a configuration.

    Raises:
        InvalidData: the file is missing, no YAML, or a value is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InvalidData(f"{path} does not exist; configs/embedded.yaml is an example") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} is no YAML: {error}") from error
    try:
        return EmbeddedConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "whole file"
        raise InvalidData(f"{path}: {where}: {first['msg']}") from error


def run(
    config_path: Path,
    *,
    photos: Path | None = None,
    out: Path | None = None,
    portraits: Callable[[Path], Image.Image] | None = None,
) -> Path:
    """Train and return the folder of the finished model.

    Args:
        config_path: a YAML file.
        photos: instead of the folder in the configuration.
        out: likewise.
        portraits: makes validation portraits with the model in a folder.
    """
    from consistentid.training.embedded.chain import Chain

    changes = {key: value for key, value in {"photos": photos, "out": out}.items() if value is not None}
    return Chain(load_config(config_path).model_copy(update=changes), portraits=portraits).run()
