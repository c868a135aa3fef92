"""`consistentid train CONFIG.yaml`: read the configuration and start what it describes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from consistentid.errors import InvalidData
from consistentid.training.adapter.config import AdapterTrainingConfig
from consistentid.training.embedded.config import EmbeddedConfig
from consistentid.training.loop import Validation

TrainingConfig = EmbeddedConfig | AdapterTrainingConfig
Portraits = Callable[[Path], Validation]
_ANY: TypeAdapter[TrainingConfig] = TypeAdapter(Annotated[TrainingConfig, Field(discriminator="kind")])


def load_config(path: Path) -> TrainingConfig:
    """Read and check a configuration.

    Raises:
        InvalidData: the file is missing, no YAML, or a value is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror}); configs/ has examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} is no YAML: {error}") from error
    try:
        return _ANY.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"].startswith("union_tag"):
            raise InvalidData(f"{path}: kind must be embedded or adapter") from error
        where = ".".join(str(part) for part in first["loc"][1:]) or "whole file"  # the first names the kind
        raise InvalidData(f"{path}: {where}: {first['msg']}") from error


def run(config: TrainingConfig, *, portraits: Portraits | None = None, max_minutes: float | None = None) -> Path:
    """Train and return the folder of the result.

    Args:
        config: what to train.
        portraits: makes validation portraits with the model or adapter in a folder.
        max_minutes: of the whole run.

    Raises:
        TrainingStopped: it was stopped before its end; the same call goes on.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    if isinstance(config, EmbeddedConfig):
        from consistentid.training.embedded.chain import Chain

        return Chain(config, portraits=portraits, deadline=deadline).run()
    from consistentid.training.adapter.trainer import AdapterTrainer

    return AdapterTrainer(config, portraits=portraits, deadline=deadline).run()
