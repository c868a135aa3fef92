"""A dataset of drawn faces, and configurations of tiny runs on it."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from consistentid.dataset.files import sha256
from consistentid.dataset.manifest import Counts, Manifest, ShardFile
from consistentid.dataset.record import FGIDRecord, Quality
from consistentid.dataset.shards import write_shard
from consistentid.faces.regions import region_masks

LANDMARKS = np.array([[38.0, 40.0], [58.0, 40.0], [48.0, 52.0], [40.0, 62.0], [56.0, 62.0]])


def drawn_label_map(shape: tuple[int, int], landmarks: np.ndarray) -> np.ndarray:
    """Ellipses around the landmarks: enough for every region to exist."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.uint8)
    unit = np.linalg.norm(landmarks[1] - landmarks[0])
    left, right, nose = landmarks[:3]
    mouth = landmarks[3:].mean(0)

    def ellipse(centre: np.ndarray, width: float, height: float, label: int) -> None:
        inside = ((x - centre[0]) / (width * unit)) ** 2 + ((y - centre[1]) / (height * unit)) ** 2 < 1
        labels[inside] = label

    ellipse(nose, 1.1, 1.5, 1)
    ellipse(nose - (1.15 * unit, 0.1 * unit), 0.15, 0.3, 7)
    ellipse(nose + (1.15 * unit, -0.1 * unit), 0.15, 0.3, 8)
    for centre, width, height, label in ((left, 0.25, 0.12, 4), (right, 0.25, 0.12, 5), (nose, 0.25, 0.3, 10)):
        ellipse(centre, width, height, label)
    ellipse(mouth, 0.45, 0.18, 12)
    ellipse(mouth + (0, 0.1 * unit), 0.4, 0.12, 13)
    return labels


def drawn_dataset(folder: Path, *, photos: int = 12) -> Path:
    """Two photos of each person, upright ones and wide ones; some people are held out."""
    records = [_record(index) for index in range(photos)]
    write_shard(records, folder / "shards" / "00000.parquet")
    shard = folder / "shards" / "00000.parquet"
    Manifest(
        made_by="test",
        sources=("drawn",),
        fingerprint=f"drawn-{photos}",
        settings={},
        recogniser="dlib",
        identity_dim=128,
        parser="drawn",
        captioner="drawn",
        counts=Counts(items=photos, accepted=photos, rejected={}, duplicates=0, ignored=0),
        people=photos // 2,
        shards=(ShardFile(name="shards/00000.parquet", rows=photos, bytes=shard.stat().st_size, sha256=sha256(shard)),),
    ).write(folder)
    return folder


def _record(index: int) -> FGIDRecord:
    rng = np.random.default_rng(index)
    height, width = (96, 96) if index % 3 else (96, 144)
    labels = drawn_label_map((height, width), LANDMARKS)
    colours = np.random.default_rng(index // 2).integers(0, 255, (19, 3))
    photo = np.clip(colours[labels] + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    person = np.random.default_rng(1000 + index // 2).normal(0, 0.1, 128)
    return FGIDRecord(
        id=f"{index:016x}", photo=_png(photo), label_map=_png(labels), width=width, height=height,
        person=f"person-{index // 2}", source="drawn", licence="CC0-1.0", origin=f"{index}.png",
        box=(28, 30, 68, 72), landmarks=LANDMARKS.tolist(), identity_embedding=tuple(person + rng.normal(0, 0.01, 128)),
        recogniser="dlib", regions=tuple(region_masks(labels)), caption=f"a portrait photo of person {index // 2}",
        facial_caption="The person has one face, two ears, two eyes, one nose, and one mouth.",
        quality=Quality(faces=1, face_px=40, sharpness=1, brightness=0.5, clipped=0, yaw=0, roll=0),
        perceptual_hash=f"{index:016x}",
    )  # fmt: skip


def _png(values: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()
