"""Photo -> FaceAnalysis: detect, choose, parse, describe."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from consistentid.errors import FaceNotSelected, InvalidData, NoFaceFound, WeightsNotFound
from consistentid.faces.description import Describer, GeometryDescriber
from consistentid.faces.detection import DLIB_LOOKS, DetectedFace, DlibDetector, FaceDetector
from consistentid.faces.ladder import LadderDetector
from consistentid.faces.parsing import FaceParser, SegformerParser
from consistentid.faces.regions import LEFT_EYE, LIPS, NOSE, RIGHT_EYE, official_region_masks, region_masks
from consistentid.images import PhotoSource, load_photo, photo_name

logger = logging.getLogger(__name__)

MIN_FACE = 32  # px, side of the face box: below it neither the recogniser nor the parser sees a person

FaceChoice = int | str
ORDERS = ("largest", "left", "right", "centre", "surest")


@dataclass(frozen=True, eq=False)
class FaceAnalysis:
    """All that is known about one face of a photo; no diffusion model is needed to make it.

    Attributes:
        photo: (h, w, 3) the upright RGB photo.
        box: left, top, right, bottom of the face in pixels.
        landmarks: (5, 2) left eye, right eye, nose, left and right mouth corner in pixels; sides are the viewer's.
            None: the label map lacks what they are measured on, and nobody gave them; official mode needs none.
        identity_embedding: (d,) the recogniser's output.
        label_map: (h, w) classes of `regions.LABEL_NAMES`.
        description: a caption of the face that names its regions; None: the fixed one of the adapter's prompt style.
        parser_label_map: (h2, w2) the parser's own output where it is not at the photo's size (BiSeNet: 512 x 512 of
            the stretched photo); official mode cuts its masks from it.
        faces_found: how many faces the photo shows.
    """

    photo: UInt8[np.ndarray, "h w 3"]
    box: tuple[float, float, float, float]
    landmarks: Float[np.ndarray, "5 2"] | None
    identity_embedding: Float[np.ndarray, " d"]
    label_map: UInt8[np.ndarray, "h w"]
    description: str | None
    parser_label_map: UInt8[np.ndarray, "h2 w2"] | None = None
    faces_found: int = 1

    @cached_property
    def region_masks(self) -> dict[str, Bool[np.ndarray, "h w"]]:
        """Aligned mode: the mask of every region that is visible; see `regions.region_masks`."""
        return region_masks(self.label_map)

    @cached_property
    def official_region_masks(self) -> dict[str, UInt8[np.ndarray, "h w"]]:
        """Official mode: masks of 0..255 at the photo's size; see `regions.official_region_masks`."""
        source = self.label_map if self.parser_label_map is None else self.parser_label_map
        return official_region_masks(source, size=(self.photo.shape[1], self.photo.shape[0]))

    @property
    def image(self) -> Image.Image:
        """The photo as a PIL image."""
        return Image.fromarray(self.photo)

    @classmethod
    def from_parts(
        cls,
        photo: UInt8[np.ndarray, "h w 3"],
        label_map: UInt8[np.ndarray, "h2 w2"],
        identity_embedding: Float[np.ndarray, " d"],
        *,
        landmarks: Float[np.ndarray, "5 2"] | None = None,
        description: str | None = None,
    ) -> "FaceAnalysis":
        """An analysis from results made elsewhere; the box, and landmarks not given, are measured on the label map.

        Raises:
            InvalidData: the label map shows no face.
        """
        whole = at_photo_size(label_map, photo)
        masks = region_masks(whole)
        if "face" not in masks:
            raise InvalidData("the label map shows no face; give one with the classes of CelebAMask-HQ")
        rows, columns = np.nonzero(masks["face"])
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        if landmarks is None:
            with suppress(InvalidData):  # official mode needs none, aligned mode will say what is missing
                landmarks = landmarks_of_labels(whole)
        own = None if whole is label_map else label_map
        return cls(photo, box, landmarks, np.asarray(identity_embedding, np.float32), whole, description, own)


class FaceAnalyzer:
    """Detect -> choose -> parse -> describe.

    Args:
        detector: finds faces and recognises them.
        parser: makes the label map.
        describer: writes the caption; None leaves it to the prompt style of the adapter.
        min_face: smallest side of the face box in pixels.
    """

    def __init__(
        self,
        detector: FaceDetector,
        parser: FaceParser,
        describer: Describer | None,
        *,
        min_face: int = MIN_FACE,
    ) -> None:
        self.detector = detector
        self.parser = parser
        self.describer = describer
        self.min_face = min_face

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        detector: FaceDetector | None = None,
        parser: FaceParser | None = None,
        describer: Describer | None = None,
        device: str = "cpu",
    ) -> "FaceAnalyzer":
        """The embedded backends (dlib, the SegFormer in folder/parser, measured words), any of them replaced.

        Raises:
            WeightsNotFound: the folder has no parser and none was given.
        """
        weights = Path(folder) / "parser"
        if parser is None and not (weights / "config.json").is_file():
            raise WeightsNotFound(f"no face parser in {weights}; give the folder of a whole model or a parser")
        return cls(
            detector or LadderDetector(*(DlibDetector(look) for look in DLIB_LOOKS)),
            parser or SegformerParser(weights, offline=True, device=device),
            describer or GeometryDescriber(),
        )

    def analyze(self, photo: PhotoSource, *, face: FaceChoice = "largest") -> FaceAnalysis:
        """Analyse one face of a photo.

        Args:
            photo: anything that `images.load_photo` reads.
            face: which face, when there are several: an order with an optional place in it, counted from 0, as in
                "largest" (the default), "largest:1", "left" (the leftmost), "left:1" (the second from the left),
                "right", "centre" (nearest to the photo's centre) or "surest" (the detector's first choice, as in the
                released code); an int counts from the largest.

        Raises:
            UnreadableImage: the photo cannot be read.
            NoFaceFound: no face was found, or the chosen one is smaller than `min_face`.
            FaceNotSelected: the photo has fewer faces than asked for, or the choice is malformed.
        """
        name = photo_name(photo)
        pixels = np.asarray(load_photo(photo))
        order, place = parse_choice(face)
        faces = self.detector.detect(pixels)
        chosen = self._choose(faces, order, place, pixels=pixels, name=name)
        parsed = self.parser.parse(pixels, chosen)
        label_map = at_photo_size(parsed, pixels)
        landmarks = chosen.landmarks if chosen.mouth_measured else with_lips(chosen.landmarks, label_map)
        words = None if self.describer is None else self.describer.describe(pixels, label_map=label_map, face=chosen)
        return FaceAnalysis(
            photo=pixels,
            box=chosen.box,
            landmarks=landmarks,
            identity_embedding=chosen.identity_embedding,
            label_map=label_map,
            description=words,
            parser_label_map=None if parsed is label_map else parsed,
            faces_found=len(faces),
        )

    def _choose(
        self, faces: list[DetectedFace], order: str, place: int, *, pixels: np.ndarray, name: str
    ) -> DetectedFace:
        if not faces:
            raise NoFaceFound(
                f"no face in {name}; give a photo in which a face of at least {self.min_face} px looks at the camera"
            )
        large = [face for face in faces if face.size >= self.min_face]
        if not large:
            largest = max(face.size for face in faces)
            raise NoFaceFound(
                f"no face in {name} is large enough; the largest is {largest:.0f} px, {self.min_face} px are needed"
            )
        if place >= len(large):
            count = "1 face is" if len(large) == 1 else f"{len(large)} faces are"
            raise FaceNotSelected(f"face {order}:{place} is not in {name}, where {count} found; count from 0")
        return in_order(large, order, width=pixels.shape[1], height=pixels.shape[0])[place]


def parse_choice(face: FaceChoice) -> tuple[str, int]:
    """Order and place of a choice such as "left:1", "largest", 2 or "2".

    Raises:
        FaceNotSelected: it is none of these.
    """
    text = str(face).strip().lower()
    order, _, number = ("largest", "", text) if text.lstrip("-").isdigit() else text.partition(":")
    if order == "center":
        order = "centre"
    if order not in ORDERS or not (number or "0").isdecimal():
        raise FaceNotSelected(f"face {face!r} is no choice; write one of {', '.join(ORDERS)}, and :1 for the second")
    return order, int(number or "0")


def in_order(faces: list[DetectedFace], order: str, *, width: int, height: int) -> list[DetectedFace]:
    """Faces sorted by one of `ORDERS`."""

    def key(face: DetectedFace) -> float:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        keys = {
            "largest": -face.size,
            "left": x,
            "right": -x,
            "centre": float(np.hypot(x - width / 2, y - height / 2)),
            "surest": -face.score,
        }
        return keys[order]

    return sorted(faces, key=key)


def with_lips(landmarks: Float[np.ndarray, "5 2"], label_map: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "5 2"]:
    """The landmarks with the mouth corners moved to the ends of the lips; unchanged when no lips are near them."""
    corners = _mouth_corners(label_map, landmarks[0], landmarks[1])
    if corners is None:
        return landmarks
    distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    if np.linalg.norm(corners.mean(0) - landmarks[3:].mean(0)) > distance:
        return landmarks
    return np.concatenate([landmarks[:3], corners]).astype(np.float32)


def _mouth_corners(
    label_map: np.ndarray, left_eye: np.ndarray, right_eye: np.ndarray
) -> Float[np.ndarray, "2 2"] | None:
    """Ends of the lips along the line of the eyes: mean of the outermost tenth of the mouth's width on each side."""
    rows, columns = np.nonzero(np.isin(label_map, LIPS))
    if rows.size < 8:
        return None
    points = np.stack([columns, rows], 1).astype(np.float32) + 0.5
    along = points @ ((right_eye - left_eye) / max(1e-6, float(np.linalg.norm(right_eye - left_eye))))
    low, high = np.percentile(along, [1, 99])
    margin = 0.1 * (high - low)
    return np.stack([points[along <= low + margin].mean(0), points[along >= high - margin].mean(0)])


def landmarks_of_labels(label_map: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "5 2"]:
    """Centres of the eyes, lower end of the nose and corners of the lips, measured on a label map.

    Raises:
        InvalidData: one of them is missing.
    """
    points: Mapping[int, np.ndarray] = {
        label: np.argwhere(label_map == label)[:, ::-1].astype(np.float32) for label in (LEFT_EYE, RIGHT_EYE, NOSE)
    }
    if any(found.size == 0 for found in points.values()):
        raise InvalidData(
            "the label map lacks an eye or the nose; give FaceAnalysis.from_parts landmarks=, or another one"
        )
    left, right = points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0)
    nose = points[NOSE]
    base = nose[nose[:, 1] >= np.percentile(nose[:, 1], 80)].mean(0)
    corners = _mouth_corners(label_map, left, right)
    if corners is None:
        raise InvalidData("the label map lacks the lips; give FaceAnalysis.from_parts landmarks=, or another one")
    return np.concatenate([np.stack([left, right, base]), corners]).astype(np.float32)


def at_photo_size(label_map: np.ndarray, photo: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """The label map itself, or stretched to the photo."""
    if label_map.shape == photo.shape[:2]:
        return label_map
    size = (photo.shape[1], photo.shape[0])
    return np.asarray(Image.fromarray(label_map).resize(size, Image.Resampling.NEAREST))
