"""`consistentid dataset`: photos -> FGID datasets."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from consistentid.cli.ray import OnRay
from consistentid.dataset.settings import BuildSettings
from consistentid.errors import InvalidSettings

dataset = App(name="dataset", help="Build datasets for training from photos, and read them.", help_format="plaintext")
_READERS = {
    "inspect": "Show what a dataset is, or one of its records with a picture.",
    "validate": "Check files, checksums and every record of a dataset.",
    "stats": "Count what a dataset holds.",
    "export": "Write a dataset in the released FGID's layout, or as WebDataset tars.",
}
for _verb, _help in _READERS.items():
    dataset.command(f"consistentid.cli.dataset_verbs:{_verb}", name=_verb, help=_help)
dataset.command(
    "consistentid.cli.precompute:precompute", name="precompute", help="Compute latents and image features for training."
)
_DEFAULTS = BuildSettings()


@dataset.command
def build(
    *paths: Path,
    settings: Annotated[BuildSettings, Parameter(name="*")] = _DEFAULTS,
    on_ray: Annotated[OnRay, Parameter(name="*")] = OnRay(),
    progress: bool = True,
) -> int:
    """Build a dataset; a build that was stopped goes on where it was.

    Args:
        paths: SOURCE... OUT: folders of photos, lists (.txt, .jsonl), WebDataset tars, Parquet files or the JSON list
            of the released FGID, and at last the folder of the dataset.
        settings: what the dataset holds.
        on_ray: several cores or machines.
        progress: show a progress bar.
    """
    if len(paths) < 2:
        raise InvalidSettings("name at least one source and the folder of the dataset: dataset build SOURCE... OUT")
    options = on_ray.options()
    need_libraries("pyarrow", "matplotlib")
    from consistentid.dataset.builder import build_dataset
    from consistentid.generation.loading import quiet_loading

    *sources, out = paths
    with quiet_loading():
        manifest = build_dataset(
            sources, out, settings=settings, ray=options, progress=progress and sys.stderr.isatty()
        )
    counts = manifest.counts
    rejected = sum(counts.rejected.values())
    print(f"{out}: {counts.accepted} photos of {manifest.people} people in {len(manifest.shards)} files")
    print(f"  of {counts.items}: {counts.duplicates} copies and {rejected} rejected, see rejected.jsonl")
    for rule, count in counts.rejected.items():
        print(f"    {rule}: {count}")
    return 0


def need_libraries(*names: str) -> None:
    """Refuse when a library of the extra `data` is not installed.

    Raises:
        InvalidSettings: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise InvalidSettings(f"datasets need {name}, which is not installed: pip install 'consistentid[data]'")
