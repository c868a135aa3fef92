"""Four people made of the two sample photos, and a maker that draws by looking at the photo."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import Made, Wanted
from consistentid.generation.loading import embedded_folder
from consistentid.images import load_photo


class BlurredCopies:
    """Draws the photos themselves, side by side, smaller and different for every seed; the last stays blank."""

    identity = "blurred copies"

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.batches, self.stop_after = 0, stop_after

    def make(self, batch: Sequence[Wanted]) -> list[Made]:
        if self.batches == self.stop_after:
            raise KeyboardInterrupt
        self.batches += 1
        return [
            Made(failure="the last one is never drawn") if k and k == len(batch) - 1 else Made(save=partial(_save, one))
            for k, one in enumerate(batch)
        ]


def _save(wanted: Wanted, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photos = [load_photo(photo).resize((128, 128)) for photo in (wanted.photo, *wanted.beside)]
    pixels = np.concatenate([np.asarray(photo, np.float32) for photo in photos], axis=1)
    noise = np.random.default_rng(wanted.seed).normal(scale=4, size=pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    """A folder with four people; of one there is no face."""
    folder = tmp_path_factory.mktemp("people")
    for name, photo in sample_photos.items():
        whole = load_photo(photo)
        whole.thumbnail((256, 256))
        for kind, picture in {"": whole, "-mirrored": ImageOps.mirror(whole)}.items():
            (folder / f"{name}{kind}").mkdir()
            picture.save(folder / f"{name}{kind}" / "1.png")
            ImageOps.autocontrast(picture, cutoff=1).save(folder / f"{name}{kind}" / "2.png")
    (folder / "nobody").mkdir()
    Image.new("RGB", (64, 64), "grey").save(folder / "nobody" / "1.png")
    return folder


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge.embedded(embedded_folder())


PROTOCOL = """
about: a small one
subjects: 5
methods: {full: {}, base: {identity_scale: 0.0, regions: []}}
sweeps: {merge_step: [0.5]}
prompts:
  plain: {text: "a portrait of a {person}", group: plain}
  smiling: {text: "a smiling {person}", group: expression, asks: {expression: smiling}, opposite: serious}
  serious: {text: "a serious {person}", group: expression, asks: {expression: serious}, opposite: smiling}
blocks:
  identity: {methods: [full, base], prompts: [plain]}
  prompts: {methods: [full], subjects: 2}
  trade-off: {methods: [full, sweeps], prompts: [smiling, serious], subjects: 1}
"""


@pytest.fixture(scope="session")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("protocol") / "small.yaml"
    path.write_text(PROTOCOL)
    return path
