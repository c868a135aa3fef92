"""`consistentid weights`: what files are, how to convert them, and where the released ones come from."""

import shutil
import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from consistentid.errors import InvalidSettings, WeightsNotFound

weights = App(name="weights", help="List, fetch, verify and convert weights.", help_format="plaintext")


@weights.command
def verify(*paths: Path) -> int:
    """Say which model each file is, and whether its layout is complete; exit 1 when one is not.

    Args:
        paths: checkpoints (.bin, .pth, .safetensors) or folders of identity adapters.
    """
    if not paths:
        raise InvalidSettings("no file was named; give checkpoints or folders")
    sound = [_verified(path) for path in paths]
    return int(not all(sound))


def _verified(path: Path) -> bool:
    """Print what a file is; whether it is known and whole."""
    from consistentid.generation.inspection import inspect_weights

    try:
        found = inspect_weights(path)
    except WeightsNotFound as error:  # of one file, which says nothing of the others
        sys.stderr.write(f"consistentid: {error}\n")
        return False
    types = ", ".join(f"{count} {name}" for name, count in sorted(found.dtypes.items()))
    print(f"{found.path}: {found.kind}")
    print(f"  {found.tensors} tensors ({types}), {found.parameters:,} parameters")
    print(f"  sha256 {found.sha256}")
    print(f"  {found.verdict}", flush=True)
    return found.is_sound


@weights.command
def convert(checkpoint: Path, folder: Path, /) -> int:
    """Convert a released checkpoint to a folder of safetensors with its configuration; the number type is kept.

    Args:
        checkpoint: ConsistentID-v1.bin, ConsistentID_SDXL-v1.bin, or the same as safetensors.
        folder: gets config.json and adapter.safetensors; must not exist.
    """
    from consistentid.generation.inspection import inspect_weights
    from consistentid.identity.checkpoint import read_official

    if folder.exists():
        raise InvalidSettings(f"{folder} exists; name a new folder")
    found = inspect_weights(checkpoint)
    if found.base is None:
        raise WeightsNotFound(f"{checkpoint} is no released checkpoint: {found.kind}")
    if found.problem:
        raise WeightsNotFound(found.problem)
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    read_official(checkpoint, base=found.base, dtype=None).save_pretrained(temporary)
    temporary.rename(folder)
    print(f"{folder}: {found.kind}, {found.parameters:,} parameters")
    return 0


@weights.command(name="list")
def list_() -> int:
    """Show what each preset needs: size, licence, and whether it has been fetched."""
    from consistentid.generation.sources import SOURCES

    for preset in SOURCES:
        _show(preset)
    return 0


@weights.command
def fetch(preset: Literal["sd15", "sdxl"], /, *, yes: bool = False, offline: bool = False) -> int:
    """Show size and licence of everything a preset needs; with --yes, download it into the hub's cache.

    Args:
        preset: family of the base model.
        yes: accept the licences and download.
        offline: only look for what is there already.
    """
    from consistentid.generation.sources import fetch as fetch_parts

    _show(preset)
    if not (yes or offline):
        print("Nothing was downloaded; with --yes you accept the licences and it is.")
        return 0
    for source, folder in fetch_parts(preset, offline=offline):
        print(f"{source.part}: {folder}", flush=True)
    return 0


def _show(preset: str) -> None:
    from consistentid.generation.sources import SOURCES, cached

    print(preset)
    for source in SOURCES[preset]:
        state = "fetched" if cached(source) else f"{source.megabytes:,} MB to fetch"
        print(f"  {source.part}: {source.repository}, {state}; licence: {source.licence}")
