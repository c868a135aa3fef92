"""What is about to be downloaded is named first, with size and licence; a preset's name stands for all it needs."""

import logging
from dataclasses import replace
from pathlib import Path

from consistentid.generation.sources import (
    RELEASED_ENCODER,
    SAFETY_CHECKER,
    SOURCES,
    Source,
    cached,
    downloaded,
    hub_name,
)

logger = logging.getLogger(__name__)

_SIGNS = {"base model": "model_index.json"}  # a file that is there when the part was fetched; else its configuration


def named_parts(
    model: str | Path, adapter: str | Path | None, *, offline: bool
) -> tuple[str | Path, str | Path | None]:
    """Base model and identity adapter as paths or hub ids; every download that they will cause is announced.

    A preset's name (`sd15`, `sdxl`) stands for its base model, its adapter unless another one is given, and its face
    parser. A published base model is fetched in the half precision of the table, unless it is there already.

    Raises:
        WeightsNotFound: a part of a preset cannot be downloaded.
    """
    preset = SOURCES.get(str(model), ()) if not Path(model).exists() else ()
    parts = {source.part: source for source in preset}
    if parts:
        base, released = parts["base model"], parts["identity adapter"]
        model, adapter = base.repository, adapter or f"{released.repository}/{released.files[0]}"
        if not offline:
            _get(parts["face parser"])
    if not offline:
        _get_base(model)
    if adapter is not None:
        announce(adapter, "identity adapter", offline=offline)
    return model, adapter


def announce(name: str | Path | None, part: str, *, offline: bool) -> None:
    """One line before a download: name, size and licence; nothing when nothing will be downloaded.

    Args:
        name: a path, or a hub id such as `owner/name` or `owner/name/file`.
        part: what it is for.
        offline: nothing is downloaded anyway.
    """
    source = None if offline or name is None else published(name, part)
    if source is not None and cached(source) is None:
        _announce(source)


def safety_checker(model: str | Path, *, offline: bool) -> Path | None:
    """The folder of the published safety checker: fetched for a preset's model, else only when it is there already.

    Raises:
        WeightsNotFound: it cannot be downloaded.
    """
    if str(model) in SOURCES and not offline:
        _get(SAFETY_CHECKER)
    return cached(SAFETY_CHECKER)


def published(name: str | Path, part: str) -> Source | None:
    """What a hub id names, from the table if it is there; None for a path."""
    named = hub_name(name)
    if named is None:
        return None
    repository, file = named
    for source in (each for sources in SOURCES.values() for each in sources if each.part == part):
        listed = file in source.files or (not file and part == "base model")
        if str(name) == RELEASED_ENCODER or (source.repository == repository and listed):
            return source
    return Source(part, repository, (file or _SIGNS.get(part, "config.json"),), 0, "")


def _get_base(model: str | Path) -> None:
    source = published(model, "base model")
    if source is None or cached(replace(source, files=(_SIGNS["base model"],))) is not None:
        return
    if source.megabytes:
        _get(source)
    else:  # not in the table, which lists files: whoever loads it downloads it
        _announce(source)


def _get(source: Source) -> None:
    if cached(source) is None:
        _announce(source)
        downloaded(source)


def _announce(source: Source) -> None:
    size = f"{source.megabytes:,} MB" if source.megabytes else "of a size that only the hub knows"
    licence = source.licence or f"see https://huggingface.co/{source.repository}"
    logger.warning("downloading the %s %s, %s; licence: %s", source.part, source.repository, size, licence)
