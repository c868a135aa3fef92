"""Build the package, install its wheel without extras in a new environment, and use it as somebody else would.

Usage: python scripts/try_package.py [--out dist] [--torch-options=OPTIONS]

Needs a package index, some 1.6 GB of disk and a few minutes. The archives stay in `dist`, the environment goes.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from venv import EnvBuilder

from PIL import Image

ROOT = Path(__file__).parents[1]
CONSUMER = ROOT / "tests" / "packaging" / "consumer.py"
PHOTO = ROOT / "examples" / "photos" / "synthetic-woman.jpg"
_RECORD = "from consistentid.generation.portrait import read_settings; print(read_settings('portrait.png').seed)"


def build(out: Path) -> Path:
    """The source archive and its wheel, which has the bytes of the tree's own wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation"]
    with TemporaryDirectory() as folder:
        run([*command, "--outdir", str(out), str(ROOT)])
        run([*command, "--wheel", "--outdir", folder, str(ROOT)])
        (direct,) = Path(folder).glob("*.whl")
        wheel = out / direct.name
        if _sha256(wheel) != _sha256(direct):
            sys.exit(f"{wheel.name} from the source archive differs from the one of the tree")
    return wheel


def install(wheel: Path, environment: Path, *, torch_options: Sequence[str]) -> Path:
    """A new environment with the wheel and nothing else; gives its folder of programs."""
    EnvBuilder(with_pip=True).create(environment)
    programs = environment / "bin"
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    run([*pip, *torch_options, "torch"])
    run([*pip, str(wheel)])
    return programs


def use(programs: Path, folder: Path) -> None:
    """The console script: what it is, what is there, a portrait offline, and the same portrait again."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(folder), "PYTHONPATH": ""}
    command = str(programs / "consistentid")
    run([command, "--version"], cwd=folder, env=offline)
    run([command, "doctor"], cwd=folder, env=offline)
    prompt = "a portrait photo of a smiling woman, blue background"
    run([command, "generate", str(PHOTO), prompt, "--seed", "3"], cwd=folder, env=offline)
    run([command, "generate", "--like", "portrait.png", "--out", "again.png"], cwd=folder, env=offline)
    run([str(programs / "python"), "-c", _RECORD], cwd=folder, env=offline)
    first, again = (Image.open(folder / name).tobytes() for name in ("portrait.png", "again.png"))
    if first != again:  # of the files, the signatures differ
        sys.exit("the portrait could not be made again")


def check_types(programs: Path, folder: Path) -> None:
    """A user's typed code against the installed package, which says in py.typed that it is typed."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", str(folder / "mypy")]
    run([*mypy, "--python-executable", str(programs / "python"), str(CONSUMER)], cwd=folder)


def run(command: Sequence[str], **options: object) -> None:
    """A command, and how long it took; the script ends with it when it fails."""
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    shown = " ".join(part.removeprefix(f"{ROOT}/") for part in command[:6])
    print(f"{time.monotonic() - start:6.1f} s  {shown}", flush=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Build, install, use, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--torch-options", default="", help="of pip, when it installs torch")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(options.out)
        programs = install(wheel, folder / "environment", torch_options=options.torch_options.split())
        use(programs, folder)
        check_types(programs, folder)
        size = sum(path.lstat().st_size for path in (folder / "environment").rglob("*") if path.is_file())
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.0f} MB; the environment: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
