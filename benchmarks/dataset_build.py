"""Photos per second and memory of `consistentid dataset build`, as the number of files grows and with Ray's workers.

    python benchmarks/dataset_build.py PHOTOS [--limit 100] [--scales 1,4,16] [--broken 100] [--workers 1,2]

Each row is a build in a process of its own, of the same photos so many times (every copy has bytes of its own) and of
files that are broken in eight ways; Ray builds the largest. Prints a Markdown table and checks that every file is
accounted for and that all engines give the same bytes. Memory is that of the largest process.
"""

import json
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import App, Parameter
from PIL import Image

_SUFFIXES = (".jpg", ".jpeg", ".png")
Numbers = Annotated[str, Parameter(help="separated by commas")]
app = App(help_format="plaintext")


@app.default
def main(
    photos: Path,
    *,
    limit: int = 100,
    scales: Numbers = "1,4,16",
    broken: int = 100,
    workers: Numbers = "1,2",
    detector: str = "dlib",
) -> None:
    """Measure and print."""
    files = list(islice((path for path in sorted(photos.rglob("*")) if path.suffix.lower() in _SUFFIXES), limit))
    files = [path for path in files if "label_maps" not in path.parts]
    print("| engine | photos | broken | seconds | files/s | MB | accepted | rejected |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        root, options = (
            Path(folder),
            ("--detector", detector, "--no-near-duplicates", "--rules.min-side", "100", "--chunk", "16"),
        )
        (root / "broken").mkdir()
        break_files(root / "broken", files[0], broken)
        for scale in map(int, scales.split(",")):
            copy_files(root / f"x{scale}", files, scale)
            measure("this process", root, scale, options)
        largest_scale = int(scales.split(",")[-1])
        times = {
            count: measure(f"Ray, {count} workers", root, largest_scale, (*options, "--ray", "--workers", count))
            for count in workers.split(",")
            if count
        }
    least, *more = times or [""]
    for count in more:
        print(f"\n{times[least] / times[count]:.2f} times as fast with {count} workers as with {least}.")


def measure(engine: str, root: Path, scale: int, options: tuple[str, ...]) -> float:
    """Build, print a row, and check; returns seconds."""
    out, source = root / engine.replace(" ", "_"), root / f"x{scale}"
    command = [sys.executable, "-c", "from consistentid.cli.app import main; main()", "dataset", "build"]
    start, peak = time.monotonic(), 0
    process = psutil.Popen([*command, source, root / "broken", out, *options], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, largest(process))
        time.sleep(0.2)
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"the build with {engine} failed")
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    files, bad = (sum(1 for path in folder.iterdir()) for folder in (source, root / "broken"))
    assert counts["items"] == files + bad
    _check_same(out, root / f"first_x{scale}")
    rejected = sum(counts["rejected"].values())
    print(
        f"| {engine} | {files} | {bad} | {seconds:.1f} | {counts['items'] / seconds:.2f} | {peak / 2**20:.0f} | "
        f"{counts['accepted']} | {rejected} |",
        flush=True,
    )
    return seconds


def largest(process: psutil.Process) -> int:
    """Bytes of the largest process of a tree."""
    try:
        return max(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _check_same(out: Path, first: Path) -> None:
    """Compare with the first build of the same files."""
    if first.is_dir():
        for path in (path for path in first.rglob("*") if path.is_file()):
            assert path.read_bytes() == (out / path.relative_to(first)).read_bytes(), f"{path.name} differs"
        out.rename(out.with_name(f"{out.name}_done"))
    else:
        out.rename(first)


def copy_files(folder: Path, files: list[Path], scale: int) -> None:
    """Every photo so many times, each with a few bytes behind its end, which readers skip."""
    folder.mkdir()
    for copy in range(scale):
        for path in files:
            name = f"{path.stem}_{copy}{path.suffix}"
            (folder / name).write_bytes(path.read_bytes() + copy.to_bytes(4, "little"))


def break_files(folder: Path, photo: Path, count: int) -> None:
    """Files that are broken in eight ways, one after the other."""
    face = Image.open(photo).convert("RGB")
    side = min(face.size)
    five = Image.new("RGB", (5 * face.width, face.height))
    for place in range(5):
        five.paste(face, (place * face.width, 0))
    ways = {
        "truncated.jpg": photo.read_bytes()[: photo.stat().st_size // 2],
        "zero.jpg": b"",
        "wrong_extension.png": b"no image at all",
        "bomb.png": _encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "cmyk.jpg": _encoded(face.convert("CMYK"), "JPEG"),
        "animated.gif": _encoded(face, "GIF", save_all=True, append_images=[face.rotate(5)]),
        "no_face.png": _encoded(Image.linear_gradient("L").resize((side, side)), "PNG"),
        "five_faces.png": _encoded(five, "PNG"),
    }
    for number, (name, content) in zip(range(count), cycle(ways.items()), strict=False):
        (folder / f"{number:04d}_{name}").write_bytes(content)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    app()
