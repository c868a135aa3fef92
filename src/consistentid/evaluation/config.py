"""The configuration of an evaluation, read from YAML."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consistentid.errors import InvalidData
from consistentid.evaluation.protocols import parse_yaml
from consistentid.generation.settings import GenerationSettings

RecogniserName = Literal["dlib", "facenet", "insightface", "uniface"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbedderConfig(_Strict):
    """A network that looks at whole pictures.

    Attributes:
        kind: `clip` also reads prompts.
        source: local folder or hub id.
    """

    kind: Literal["clip", "dino"]
    source: str


class FaceIdConfig(_Strict):
    """A stock diffusers pipeline with IP-Adapter-FaceID as a baseline.

    Attributes:
        base: folder or hub id of a Stable Diffusion pipeline.
        weights: the adapter's file (`ip-adapter-faceid_sd15.bin`, `ip-adapter-faceid-plusv2_sd15.bin`).
        image_encoder: CLIP vision tower of a Plus adapter; None for FaceID without Plus.
        scale: strength of the adapter.
        shortcut: of Plus v2, off for Plus.
    """

    base: str
    weights: Path
    image_encoder: str | None = None
    scale: float = Field(default=1.0, ge=0)
    shortcut: bool = False


class EvaluationConfig(_Strict):
    """What is evaluated, on whom, and how.

    Attributes:
        model: base model or folder, as in `PortraitGenerator.from_pretrained`.
        adapter: identity adapter, None for the model's own.
        photos: folder of people; see `subjects.find_subjects`.
        out: folder of portraits, measurements and the report.
        protocol: name of one in the package, or a YAML file.
        blocks: only these blocks of the protocol; empty means all.
        subjects: at most so many people.
        settings: generation settings of every portrait.
        methods: instead of the protocol's.
        baselines: further methods on stock pipelines; they take part in every block that draws `full`.
        batch_size: portraits in one denoising run.
        recognisers: judges of identity.
        regions: what embeds regions for FGIS: `facenet`, or folder or hub id of a DINO; None for dlib's features.
        embedders: networks that look at whole pictures, by name.
        device: of the generator.
        offline: never download.
    """

    model: str = "embedded"
    adapter: str | None = None
    photos: Path | None = None
    out: Path = Path("out/evaluation")
    protocol: str = "embedded"
    blocks: tuple[str, ...] = ()
    subjects: int | None = Field(default=None, ge=1)
    settings: dict[str, object] = {}
    methods: dict[str, dict[str, object]] | None = None
    baselines: dict[str, FaceIdConfig] = {}
    batch_size: int = Field(default=8, ge=1)
    recognisers: tuple[RecogniserName, ...] = Field(default=("dlib", "facenet"), min_length=1)
    regions: str | None = None
    embedders: dict[str, EmbedderConfig] = {}
    device: str = "cpu"
    offline: bool = True

    @model_validator(mode="after")
    def _settings_are_settings(self) -> "EvaluationConfig":
        for settings in (self.settings, *(self.methods or {}).values()):
            GenerationSettings.model_validate(settings)
            if taken := {"seed", "num_images"} & settings.keys():
                raise ValueError(f"{taken.pop()} is decided by the protocol")
        return self


def load_config(source: str | Path) -> EvaluationConfig:
    """A YAML file, or the defaults with a model by name or folder.

    Raises:
        InvalidData: the file is missing, no YAML, or a value is wrong.
    """
    path = Path(source)
    if path.suffix.lower() not in {".yaml", ".yml"}:
        return EvaluationConfig(model=str(source))
    if not path.is_file():
        raise InvalidData(f"{path} does not exist; configs/evaluate.yaml is an example")
    return parse_yaml(path.read_text(), EvaluationConfig, name=str(path))
