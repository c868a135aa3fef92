"""Every test runs offline on two cores; pytest-socket blocks the network (see pyproject.toml)."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Read by torch and numpy when they are first imported; with two test processes, each has one core.
_threads = os.environ.get("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, _threads)

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def sample_photos(root: Path) -> dict[str, Path]:
    """The sample photos, by name."""
    return {path.stem: path for path in sorted((root / "examples" / "photos").glob("*.jpg"))}


@pytest.fixture(autouse=True, scope="session")
def _own_cache() -> Iterator[None]:
    """Nothing is read from or written to the user's folders of conditionings and of configuration."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CONSISTENTID_CACHE"] = folder
        os.environ["CONSISTENTID_CONFIG"] = f"{folder}/no-configuration"
        yield
