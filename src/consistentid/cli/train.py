"""`consistentid train`."""

from pathlib import Path


def train(config: Path, /, *, photos: Path | None = None, out: Path | None = None) -> int:
    """Train what a configuration file describes; an interrupted run goes on where it stopped.

    Args:
        config: YAML file, for example configs/embedded.yaml.
        photos: folder of photos, instead of the one in the configuration.
        out: folder of the results, instead of the one in the configuration.
    """
    from consistentid.training.run import run

    print(run(config, photos=photos, out=out))
    return 0
