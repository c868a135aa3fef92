"""An item -> a record, or the rule it breaks: read, decode, detect, judge, parse, caption."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from typing import Self

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from consistentid.dataset.captions import Captioner, CaptionInput, Captions, captioner_of
from consistentid.dataset.duplicates import perceptual_hash
from consistentid.dataset.models import detector_of, parser_of
from consistentid.dataset.quality import measure
from consistentid.dataset.record import FGIDRecord, Quality
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.sources import Item
from consistentid.dataset.sources.item import Content, Rejection
from consistentid.errors import InvalidSettings, UnreadableImage, WeightsNotFound
from consistentid.faces.analysis import at_photo_size, with_lips
from consistentid.faces.detection import DetectedFace, FaceDetector
from consistentid.faces.parsing import FaceParser
from consistentid.faces.regions import LABEL_NAMES, region_masks
from consistentid.images import load_photo

logger = logging.getLogger(__name__)

_JPEG_QUALITY = 95
_NEED_LABELS = ("dark", "bright", "clipped")  # rules on the pixels of the face; the others need the photo alone
_NOT_OF_THE_PHOTO = (WeightsNotFound, InvalidSettings)


@dataclass(frozen=True)
class Rejected:
    """An item that is no record.

    Attributes:
        source, origin: of the item.
        rule: which rule it breaks; counted.
        reason: one sentence.
    """

    source: str
    origin: str
    rule: str
    reason: str


Outcome = FGIDRecord | Rejected


@dataclass(frozen=True, eq=False)
class _Analysed:
    """A photo that keeps all rules, without captions."""

    item: Item
    content: Content
    photo: UInt8[np.ndarray, "h w 3"]
    stored: bytes
    face: DetectedFace
    label_map: UInt8[np.ndarray, "h w"]
    quality: Quality


class Stages:
    """The stages with their models; the same objects in this process and in a worker.

    Args:
        detector: finds faces and recognises them.
        parser: for photos without a label map.
        captioner: for photos without captions.
        settings: everything else.
    """

    def __init__(
        self, detector: FaceDetector, parser: FaceParser, captioner: Captioner, settings: BuildSettings
    ) -> None:
        self.detector = detector
        self.parser = parser
        self.captioner = captioner
        self.settings = settings

    @classmethod
    def of(cls, settings: BuildSettings) -> Self:
        """The stages with the models that the settings name.

        Raises:
            InvalidSettings: a model has an unknown name.
            WeightsNotFound: a model's files are missing.
        """
        models = detector_of(settings.detector), parser_of(settings.parser), captioner_of(settings.captioner)
        return cls(*models, settings)

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """What becomes of each item, in their order; at most `caption_batch` photos are held in memory.

        Raises:
            WeightsNotFound: a model cannot be loaded.
        """
        from consistentid.devices import torch_threads

        with torch_threads(1):  # sums are rounded alike on every machine, and workers do not fight for the cores
            size = self.settings.caption_batch
            return [
                each for start in range(0, len(items), size) for each in self._run_batch(items[start : start + size])
            ]

    def _run_batch(self, items: Sequence[Item]) -> list[Outcome]:
        found = [self._analyse(item) for item in items]
        captions = iter(self._captions([each for each in found if isinstance(each, _Analysed)]))
        return [each if isinstance(each, Rejected) else self._record(each, next(captions)) for each in found]

    def _analyse(self, item: Item) -> _Analysed | Rejected:
        try:
            return self._analysed(item)
        except Rejection as rejection:
            return Rejected(item.source, item.origin, rejection.rule, rejection.reason)
        except _NOT_OF_THE_PHOTO:
            raise
        except Exception as error:  # one photo in half a million must not stop the others; it is listed
            logger.warning("%s failed", item.origin, exc_info=error)
            return Rejected(item.source, item.origin, "failed", f"{type(error).__name__}: {error}")

    def _analysed(self, item: Item) -> _Analysed:
        content = item.read()
        try:
            image = load_photo(content.photo, max_side=self.settings.max_side)
        except UnreadableImage as error:
            raise Rejection("unreadable", str(error)) from error
        photo = np.asarray(image)
        faces = self.detector.detect(photo)
        if not faces:
            raise Rejection("no_face", "no face was found")
        face = faces[0]
        nothing = np.zeros(photo.shape[:2], np.uint8)
        self._judge(photo, measure(photo, face, nothing, faces=len(faces)), but=_NEED_LABELS)  # parsing is slow
        label_map = self._label_map(content, photo, face)
        if not face.mouth_measured:
            face = replace(face, landmarks=with_lips(face.landmarks, label_map))
        quality = measure(photo, face, label_map, faces=len(faces))
        self._judge(photo, quality)
        face = replace(face, identity_embedding=self._embedding(content, face))
        return _Analysed(item, content, photo, _encoded(content.photo, image), face, label_map, quality)

    def _judge(self, photo: np.ndarray, quality: Quality, *, but: Sequence[str] = ()) -> None:
        height, width = photo.shape[:2]
        broken = [rule for rule in self.settings.rules.reasons(quality, width=width, height=height) if rule not in but]
        if broken:
            measured = ", ".join(f"{name} {value:.4g}" for name, value in quality)
            raise Rejection(broken[0], f"{', '.join(broken)}: {width} x {height} px, {measured}")

    def _label_map(self, content: Content, photo: np.ndarray, face: DetectedFace) -> UInt8[np.ndarray, "h w"]:
        if content.label_map is None:
            return at_photo_size(self.parser.parse(photo, face), photo)
        try:
            with Image.open(BytesIO(content.label_map)) as image:
                given = np.asarray(image)
        except OSError as error:
            raise Rejection("label_map", f"its label map is no image ({error})") from error
        if given.ndim != 2 or given.max() >= len(LABEL_NAMES):
            raise Rejection("label_map", "its label map is no grey image of CelebAMask-HQ's classes")
        height, width = photo.shape[:2]
        if abs(given.shape[1] * height - given.shape[0] * width) > max(height, width):  # beyond a pixel of rounding
            raise Rejection("label_map", f"its label map has {given.shape[1]} x {given.shape[0]} px, another shape")
        return at_photo_size(given.astype(np.uint8), photo)

    def _embedding(self, content: Content, face: DetectedFace) -> np.ndarray:
        """The source's identity embedding when the recogniser can have made it, else the recogniser's."""
        given = content.identity_embedding
        usable = given is not None and given.size == self.detector.embedding_dim and bool(np.isfinite(given).all())
        return given if given is not None and usable else face.identity_embedding

    def _captions(self, photos: Sequence[_Analysed]) -> list[Captions]:
        """The source's captions, completed by the captioner's."""
        unstated = [each for each in photos if not (each.content.about.caption and each.content.about.facial_caption)]
        inputs = [
            CaptionInput(each.photo, each.label_map, each.face, each.content.about.model_dump(exclude_none=True))
            for each in unstated
        ]
        written = iter(self.captioner.caption(inputs) if inputs else ())
        captions = []
        for each in photos:
            about = each.content.about
            own = Captions("", "") if about.caption and about.facial_caption else next(written)
            captions.append(Captions(about.caption or own.overall, about.facial_caption or own.facial))
        return captions

    def _record(self, analysed: _Analysed, captions: Captions) -> FGIDRecord:
        about, face, photo = analysed.content.about, analysed.face, analysed.photo
        return FGIDRecord(
            id=sha256(analysed.content.photo).hexdigest()[:16],
            photo=analysed.stored,
            label_map=_png(analysed.label_map),
            width=photo.shape[1],
            height=photo.shape[0],
            person=about.person or "",  # until people are told apart
            source=about.source or analysed.item.source,
            licence=about.licence or "not stated",
            origin=about.url or analysed.item.origin,
            box=face.box,
            landmarks=face.landmarks.tolist(),
            identity_embedding=face.identity_embedding.tolist(),
            recogniser=self.detector.name,
            regions=tuple(region_masks(analysed.label_map)),
            caption=captions.overall,
            facial_caption=captions.facial,
            gender=about.gender,
            gender_estimated=about.gender_estimated,
            age=about.age,
            quality=analysed.quality,
            perceptual_hash=perceptual_hash(photo),
        )


def _encoded(original: bytes, photo: Image.Image) -> bytes:
    """The file itself when it decodes to just this photo, else a JPEG of it."""
    with Image.open(BytesIO(original)) as image:
        if _is_plain(image) and image.size == photo.size:
            return original
    encoded = BytesIO()
    photo.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()


def _is_plain(image: Image.Image) -> bool:
    """Whether any reader shows the file as it is stored: RGB, no rotation, no colour profile, no transparency."""
    if image.format not in ("JPEG", "PNG") or image.mode != "RGB" or getattr(image, "n_frames", 1) > 1:
        return False
    if image.has_transparency_data or image.info.get("icc_profile"):
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # noqa: BLE001  Pillow raises many kinds for broken EXIF
        return False


def _png(label_map: np.ndarray) -> bytes:
    encoded = BytesIO()
    Image.fromarray(label_map).save(encoded, "PNG")
    return encoded.getvalue()
