"""How a dataset is built: all that decides what it holds, and nothing else."""

from pydantic import BaseModel, ConfigDict, Field

from consistentid.dataset.quality import Rules


class BuildSettings(BaseModel):
    """Settings of `consistentid dataset build`, kept in the manifest.

    Attributes:
        detector: finds and recognises faces: dlib, "dlib hog" (fast, frontal faces), insightface or uniface.
        parser: makes label maps where a source has none: embedded, the folder of a SegFormer, or face_parsing.pth.
        captioner: writes the captions that a source does not state: template (fixed words), measured (hair, expression
            and background), "vision-language MODEL" or "vllm MODEL".
        max_side: px; larger photos are shrunk to it.
        near_duplicates: leave out near copies too, and not only copies.
        chunk: photos that are done at once; what a killed build does again.
        caption_batch: photos that the captioner sees at once.
        shard_rows: records in one file.
        rules: which photos are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = "dlib"
    parser: str = "embedded"
    captioner: str = "template"
    max_side: int = Field(default=1536, ge=64)
    near_duplicates: bool = True
    chunk: int = Field(default=64, gt=0)
    caption_batch: int = Field(default=16, gt=0)
    shard_rows: int = Field(default=1024, gt=0)
    rules: Rules = Rules()
