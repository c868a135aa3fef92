"""Detectors whose recogniser is ArcFace, as the released checkpoints need it: InsightFace, and UniFace."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from consistentid.errors import WeightsNotFound
from consistentid.faces.detection import DetectedFace, largest_first
from consistentid.faces.ladder import LadderDetector
from consistentid.faces.packs import PUBLISHED, find_pack, insightface_root

logger = logging.getLogger(__name__)

ChannelOrder = Literal["bgr", "rgb"]
_UNIFACE_DETECTOR = "retinaface_mnet_v2"
_UNIFACE_RECOGNISERS = {"resnet": "arcface_resnet", "mnet": "arcface_mnet"}


def arcface_detector(*, channel_order: ChannelOrder, offline: bool) -> LadderDetector:
    """What recognises faces for a released checkpoint: InsightFace, then UniFace where it is ready.

    Without InsightFace, whose older versions need a compiler, UniFace alone. Its recogniser is the same network.

    Args:
        channel_order: what both are given; see `InsightFaceDetector`.
        offline: download nothing.
    """
    uniface = UnifaceDetector(channel_order=channel_order, offline=offline)
    if find_spec("insightface") is None and find_spec("uniface") is not None:
        return LadderDetector(uniface)
    insightface = InsightFaceDetector(channel_order=channel_order, offline=offline)
    return LadderDetector(insightface, uniface) if uniface.is_ready else LadderDetector(insightface)


class InsightFaceDetector:
    """SCRFD and ArcFace of an InsightFace model pack; 512-d embedding of length 1.

    The released ConsistentID checkpoints were trained with the pack buffalo_l, whose weights may be used for
    non-commercial research only.

    Args:
        pack: name of the pack, a folder below `root`/models.
        root: where packs are kept; by default `packs.insightface_root()`.
        channel_order: what the networks are given. They were trained on "bgr"; the released SD 1.5 demo sends "rgb".
        providers: onnxruntime's execution providers.
        offline: never download the pack.
    """

    name = "insightface"
    embedding_dim = 512

    def __init__(
        self,
        pack: str = "buffalo_l",
        *,
        root: str | Path | None = None,
        channel_order: ChannelOrder = "bgr",
        providers: Sequence[str] = ("CPUExecutionProvider",),
        offline: bool = False,
    ) -> None:
        self.pack = pack
        self.root = insightface_root() if root is None else Path(root).expanduser()
        self.channel_order = channel_order
        self.providers = list(providers)
        self.offline = offline

    @cached_property
    def _app(self) -> Any:
        try:
            from insightface.app import FaceAnalysis
        except ImportError as error:
            raise _not_installed("insightface", error) from error
        found = find_pack(self.root, self.pack)
        if not any(found.folder.glob("*.onnx")):
            if self.offline:
                raise WeightsNotFound(f"no InsightFace pack in {found.folder}; unpack {self.pack}.zip there")
            size, licence = PUBLISHED.get(self.pack, ("size unknown", "see InsightFace's model zoo"))
            logger.warning("downloading the face recogniser %s: %s MB; licence: %s", self.pack, size, licence)
        try:
            app = FaceAnalysis(
                name=found.name,
                root=str(self.root),
                allowed_modules=["detection", "recognition"],
                providers=self.providers,
            )
        except AssertionError as error:  # how InsightFace says that a pack has no detector
            raise WeightsNotFound(f"{found.folder} holds no face detector; unpack {self.pack}.zip again") from error
        app.prepare(ctx_id=0, det_size=(640, 640))
        return app

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`."""
        return largest_first(
            DetectedFace(
                box=_box(found.bbox),
                landmarks=np.asarray(found.kps, np.float32),
                identity_embedding=np.asarray(found.normed_embedding, np.float32),
                score=float(found.det_score),
            )
            for found in self._app.get(_in_order(photo, self.channel_order))
        )


class UnifaceDetector:
    """RetinaFace and ArcFace of the package uniface (MIT code, version 4 or newer); 512-d embedding of length 1.

    Args:
        recogniser: "resnet" is the network of InsightFace's buffalo_l, "mnet" the small one of buffalo_s; embeddings of
            the two cannot be compared.
        channel_order: what the networks are given; see `InsightFaceDetector`.
        providers: onnxruntime's execution providers.
        offline: never download the networks.
    """

    name = "uniface"
    embedding_dim = 512

    def __init__(
        self,
        *,
        recogniser: Literal["resnet", "mnet"] = "resnet",
        channel_order: ChannelOrder = "bgr",
        providers: Sequence[str] = ("CPUExecutionProvider",),
        offline: bool = False,
    ) -> None:
        self.recogniser = recogniser
        self.channel_order = channel_order
        self.providers = list(providers)
        self.offline = offline

    @property
    def folder(self) -> Path:
        """Where uniface keeps its networks."""
        return Path(os.environ.get("UNIFACE_CACHE_DIR", "~/.uniface/models")).expanduser()

    @property
    def missing(self) -> list[str]:
        """Files of the two networks that are not there."""
        names = (_UNIFACE_DETECTOR, _UNIFACE_RECOGNISERS[self.recogniser])
        return [f"{name}.onnx" for name in names if not (self.folder / f"{name}.onnx").is_file()]

    @property
    def is_ready(self) -> bool:
        """Whether the package is installed and nothing has to be downloaded."""
        return find_spec("uniface") is not None and not self.missing

    @cached_property
    def _networks(self) -> tuple[Any, Any]:
        try:
            from uniface.constants import ArcFaceWeights, RetinaFaceWeights
            from uniface.detection import RetinaFace
            from uniface.recognition import ArcFace
        except ImportError as error:
            raise _not_installed("uniface", error) from error
        if self.missing and self.offline:
            raise WeightsNotFound(
                f"UniFace lacks {' and '.join(self.missing)} in {self.folder}; copy them there, or run once without "
                "--offline"
            )
        if self.missing:
            logger.warning(
                "downloading UniFace's %s; size and licence: github.com/yakhyo/uniface", " and ".join(self.missing)
            )
        recogniser = ArcFaceWeights(_UNIFACE_RECOGNISERS[self.recogniser])
        detector = RetinaFaceWeights(_UNIFACE_DETECTOR)
        return (
            RetinaFace(model_name=detector, providers=self.providers),
            ArcFace(model_name=recogniser, providers=self.providers),
        )

    def detect(self, photo: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See `FaceDetector.detect`."""
        detector, recogniser = self._networks
        seen = _in_order(photo, self.channel_order)
        return largest_first(
            DetectedFace(
                box=_box(found.bbox),
                landmarks=np.asarray(found.landmarks, np.float32),
                identity_embedding=np.asarray(
                    recogniser.get_normalized_embedding(seen, found.landmarks), np.float32
                ).ravel(),
                score=float(found.confidence),
            )
            for found in detector.detect(seen)
        )


def _in_order(photo: np.ndarray, order: ChannelOrder) -> np.ndarray:
    return np.ascontiguousarray(photo[..., ::-1] if order == "bgr" else photo)


def _box(corners: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in corners[:4])
    return left, top, right, bottom


def _not_installed(package: str, error: ImportError) -> WeightsNotFound:
    return WeightsNotFound(f'{package} cannot be imported ({error}); run `pip install "consistentid[faces]"`')
