"""Where the weights of each base model are published: data, and downloads that the user asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consistentid.errors import InvalidSettings, WeightsNotFound, first_line
from consistentid.faces.packs import PUBLISHED, find_pack, insightface_root


@dataclass(frozen=True)
class Source:
    """Files of one part on the hub.

    Attributes:
        part: what it is for.
        repository: hub id.
        files: paths or patterns in the repository.
        megabytes: about, of all files.
        licence: of the weights.
        on_hub: whether it is fetched from the hub; else the package that uses it fetches it at its first use.
    """

    part: str
    repository: str
    files: tuple[str, ...]
    megabytes: int
    licence: str
    on_hub: bool = True


_PIPELINE = ("model_index.json", "*/*.json", "*/*.txt")
_NETWORKS = ("unet", "vae", "text_encoder")


def _in_half(*networks: str) -> tuple[str, ...]:
    """Patterns of 16-bit weights, one for each network, so that none can be missing unnoticed."""
    return tuple(f"{network}/*.fp16*.safetensors" for network in networks)


_RELEASE = "JackAILab/ConsistentID"
_RELEASE_LICENCE = "MIT; trained with InsightFace, whose models are for non-commercial research only"
_PARSER = Source("face parser", _RELEASE, ("face_parsing.pth",), 53, "data for non-commercial research only")
_RECOGNISER = Source("face recogniser", "InsightFace's buffalo_l", ("*.onnx",), *PUBLISHED["buffalo_l"], on_hub=False)
RELEASED_ENCODER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
# The vision tower alone; laion/CLIP-ViT-H-14-laion2B-s32B-b79K holds the text tower too (3,900 MB).
_ENCODER = Source(
    "image encoder", "h94/IP-Adapter",
    ("models/image_encoder/config.json", "models/image_encoder/model.safetensors"), 2530, "Apache-2.0",
)  # fmt: skip
SAFETY_CHECKER = Source(
    "safety checker", "stable-diffusion-v1-5/stable-diffusion-v1-5",
    ("safety_checker/config.json", *_in_half("safety_checker")), 608, "CreativeML OpenRAIL-M",
)  # fmt: skip
SOURCES: dict[str, tuple[Source, ...]] = {
    "sd15": (
        Source("identity adapter", _RELEASE, ("ConsistentID-v1.bin",), 669, _RELEASE_LICENCE),
        _PARSER,
        _RECOGNISER,
        _ENCODER,
        Source(
            "base model", "stable-diffusion-v1-5/stable-diffusion-v1-5",
            (*_PIPELINE, *_in_half(*_NETWORKS, "safety_checker")), 2740, "CreativeML OpenRAIL-M",
        ),
    ),
    "sdxl": (
        Source("identity adapter", _RELEASE, ("ConsistentID_SDXL-v1.bin",), 3480, _RELEASE_LICENCE),
        _PARSER,
        _RECOGNISER,
        _ENCODER,
        Source(
            "base model", "stabilityai/stable-diffusion-xl-base-1.0",
            (*_PIPELINE, *_in_half(*_NETWORKS, "text_encoder_2")), 7000, "CreativeML Open RAIL++-M",
        ),
        SAFETY_CHECKER,  # SDXL is published without one
    ),
}  # fmt: skip
Preset = Literal["sd15", "sdxl"]


def fetch(preset: str, *, offline: bool = False) -> Iterator[tuple[Source, Path]]:
    """Download what a preset needs, one part after the other, into the hub's cache; what is there is not fetched.

    Raises:
        InvalidSettings: there is no such preset.
        WeightsNotFound: a part is not in the cache (offline) or cannot be downloaded.
    """
    if preset not in SOURCES:
        raise InvalidSettings(f"no preset {preset!r}; choose from {', '.join(SOURCES)}")
    for source in SOURCES[preset]:
        if source.on_hub or offline or cached(source) is not None:
            yield source, _folder(source, offline=offline)


def hub_path(source: str | Path, *, offline: bool, part: str = "identity adapter") -> Path:
    """Where an adapter is: a folder or file of this machine (which may be missing), or one that a hub id names.

    Args:
        source: a local path; `owner/name`, a repository with our folder layout; `owner/name/file`, a single file.
        offline: take it from the hub's cache only.
        part: what it is for.

    Raises:
        WeightsNotFound: it is neither here nor, under that name, on the hub.
    """
    named = hub_name(source)
    if named is None:
        return Path(source).expanduser()
    repository, file = named
    files = (file,) if file else ("config.json", "adapter.safetensors")
    folder = _folder(Source(part, repository, files, 0, ""), offline=offline)
    return folder / file if file else folder


def hub_name(source: str | Path) -> tuple[str, str] | None:
    """Repository and file (or "") that a hub id names; None for what names a place on this machine."""
    local = Path(source).expanduser()
    owner, *rest = str(source).split("/")
    if local.exists() or isinstance(source, Path) or not rest or owner in {"", ".", "..", "~"}:
        return None
    if len(rest) == 1 and local.suffix in {".bin", ".safetensors", ".pt", ".pth"}:
        return None
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def encoder_source(name: str | None, *, offline: bool) -> str | None:
    """Where an adapter's image encoder is read from: the released adapters' own is published alone, and smaller.

    Args:
        name: of the adapter's configuration.
        offline: take it from the hub's cache only; the larger publication serves when it is there instead.

    Raises:
        WeightsNotFound: it cannot be downloaded.
    """
    if name != RELEASED_ENCODER:
        return name
    folder = cached(_ENCODER) if offline else _folder(_ENCODER, offline=False)
    return name if folder is None else str(folder / "models" / "image_encoder")


def parser_weights(adapter_folder: Path) -> Path | None:
    """`face_parsing.pth` beside an adapter, or fetched into the hub's cache; None when it is in neither place."""
    beside = next((path for path in sorted(adapter_folder.glob("face_parsing.*"))), None)
    if beside is not None:
        return beside
    folder = cached(_PARSER)
    return None if folder is None else folder / "face_parsing.pth"


def cached(source: Source) -> Path | None:
    """The folder in the hub's cache, None when the part, or some of it, was never fetched."""
    try:
        return _folder(source, offline=True)
    except WeightsNotFound:
        return None


def downloaded(source: Source) -> Path:
    """The folder in the hub's cache, downloaded where it is not there yet.

    Raises:
        WeightsNotFound: it cannot be downloaded.
    """
    return _folder(source, offline=False)


def _pack_folder(source: Source) -> Path:
    pack = find_pack(insightface_root(), "buffalo_l")
    if pack.missing:
        raise WeightsNotFound(
            f"{source.repository} is not in {pack.folder}; InsightFace fetches it when a photo is first analysed, or "
            "unpack buffalo_l.zip there"
        )
    return pack.folder


def snapshot(repository: str) -> Path | None:
    """The folder of a repository in the hub's cache, complete or not; None when nothing of it was ever fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=["model_index.json"], local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _folder(source: Source, *, offline: bool) -> Path:
    if not source.on_hub:
        return _pack_folder(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.repository, allow_patterns=list(source.files), local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = "it is not in the hub's cache and --offline was given" if offline else first_line(error)
        raise WeightsNotFound(f"cannot get the {source.part} from {source.repository}: {reason}") from error
    missing = [file for file in source.files if not any(folder.glob(file))]
    if missing:
        raise WeightsNotFound(f"{source.repository} in the hub's cache lacks {', '.join(missing)}; fetch it again")
    return folder
