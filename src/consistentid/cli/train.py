"""`consistentid train`."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from consistentid.errors import InvalidData, InvalidSettings

if TYPE_CHECKING:
    from consistentid.faces.analysis import FaceAnalysis
    from consistentid.images import PhotoSource
    from consistentid.training.run import Portraits, TrainingConfig

_NEEDED = {"pyarrow": "pyarrow", "yaml": "pyyaml"}  # module: package


def train(
    config: Path,
    /,
    *,
    photos: Path | None = None,
    dataset: Path | None = None,
    out: Path | None = None,
    validate: list[Path] | None = None,
    max_minutes: float | None = None,
) -> int:
    """Train what a configuration file describes; an interrupted run goes on where it stopped.

    Args:
        config: YAML file, for example configs/embedded.yaml.
        photos: folder of photos for the embedded model, instead of the one in the configuration.
        dataset: dataset for an adapter, instead of the one in the configuration.
        out: folder of the results, instead of the one in the configuration.
        validate: photos of people to make portraits of while training; by default of the first held-out people.
        max_minutes: write a checkpoint and stop after this time, with exit code 3; the same command goes on.
    """
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise InvalidSettings(
            f"training needs {', '.join(missing)}, not installed: pip install 'consistentid[data,train]'"
        )
    if not config.is_file():
        raise InvalidData(f"{config} does not exist; configs/ has examples")
    from consistentid.training.run import load_config, run

    changes = {"photos": photos, "dataset": dataset, "out": out}
    settings = load_config(config)
    foreign = "photos" if settings.kind == "adapter" else "dataset"
    if changes[foreign] is not None:
        raise InvalidSettings(f"--{foreign} is not for a configuration of kind {settings.kind}")
    settings = settings.model_copy(update={name: value for name, value in changes.items() if value is not None})
    folder = run(settings, portraits=_portraits(settings, validate), max_minutes=max_minutes)
    if os.environ.get("RANK", "0") == "0":  # of the processes that a launcher started, one speaks
        print(folder)
    return 0


def _portraits(settings: "TrainingConfig", people: list[Path] | None) -> "Portraits":
    """What makes portraits with a model or adapter in a folder."""
    from functools import cache

    from consistentid.cli.validation import first_people, portraits_of
    from consistentid.training.loop import Validation
    from consistentid.training.process import this_process

    @cache
    def shown() -> "list[PhotoSource | FaceAnalysis]":
        if people:
            return list(people)
        return list(first_people(settings.dataset if settings.kind == "adapter" else settings.out / "dataset"))

    def portraits(folder: Path) -> Validation:
        from consistentid.generation.generator import PortraitGenerator

        if settings.kind == "adapter":
            encoder = settings.image_encoder
            generator = PortraitGenerator.from_pretrained(
                settings.base,
                adapter=folder,
                device=this_process().device,
                offline=settings.offline,
                image_encoder=encoder,
                cache=False,
            )
        else:
            generator = PortraitGenerator.from_pretrained(folder, device=this_process().device, offline=True)
        return portraits_of(generator, shown())

    return portraits
