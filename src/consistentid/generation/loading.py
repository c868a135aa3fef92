"""Base model, adapter and face analysis from names and folders."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from consistentid.errors import InvalidSettings, WeightsNotFound, first_line
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.faces.arcface import arcface_detector
from consistentid.faces.bisenet import BisenetParser
from consistentid.generation.additions import fuse_loras, load_textual_inversions
from consistentid.generation.base_folder import load_base_folder
from consistentid.generation.downloads import announce, named_parts
from consistentid.generation.optimisation import Optimisation, check_optimisation, loading_arguments, optimise
from consistentid.generation.origin import Origin, absolute, absolute_loras
from consistentid.generation.precision import dtype_for
from consistentid.generation.single_file import is_single_file, load_single_file
from consistentid.generation.sources import encoder_source, hub_path, parser_weights
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.checkpoint import load_adapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import ImageEncoderConfig
from consistentid.identity.image_encoder import image_encoder_for

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Parts:
    """What a generator is made of."""

    pipeline: Any
    adapter: IdentityAdapter
    analyzer: FaceAnalyzer | None
    origin: Origin


def conditioner_for(parts: Parts, *, offline: bool) -> Conditioner:
    """The conditioner of loaded parts, with the image encoder that their adapter was trained with.

    Args:
        parts: their adapter names the encoder; their origin may say that it is somewhere else.
        offline: never download it.

    Raises:
        WeightsNotFound: the encoder is missing.
        InvalidSettings: it is another one than the adapter's.
    """
    config = parts.adapter.config.image_encoder
    if parts.origin.image_encoder is not None:
        config = ImageEncoderConfig(kind="clip", source=parts.origin.image_encoder)
    announce(config.source, "image encoder", offline=offline)
    source = encoder_source(config.source, offline=offline)
    with quiet_loading(bars=not offline):
        encoder = image_encoder_for(
            config.model_copy(update={"source": source}), device=parts.pipeline.device, offline=offline
        )
    return Conditioner.from_pipeline(parts.pipeline, parts.adapter, image_encoder=encoder)


def embedded_folder() -> Path:
    """Folder of the model in the package.

    Raises:
        WeightsNotFound: the package was installed without it.
    """
    folder = Path(str(files("consistentid.embedded")))
    if not (folder / "model_index.json").is_file():
        raise WeightsNotFound(
            f"the embedded model is not in {folder}; reinstall the package, or run `make train-embedded PHOTOS=folder`"
        )
    return folder


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device that tensors can be made on; the CPU by default.

    Raises:
        InvalidSettings: torch does not know it, or it is not there.
    """
    try:
        place = torch.device(device or "cpu")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError):  # AssertionError: torch without CUDA
        raise InvalidSettings(f"device {str(device)!r} cannot be used here; choose cpu, cuda or mps") from None
    return place


def load_parts(
    model: str | Path,
    *,
    adapter: str | Path | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
    offline: bool,
    analyzer: FaceAnalyzer | None,
    base_config: str | Path | None = None,
    loras: Sequence[str] = (),
    textual_inversions: Sequence[str] = (),
    optimisation: Optimisation = Optimisation(),
    image_encoder: str | Path | None = None,
) -> Parts:
    """See `PortraitGenerator.from_pretrained`."""
    place = usable_device(device)
    weights = dtype_for(dtype, place)
    check_optimisation(optimisation, device=place, single_file=is_single_file(model))
    home = place if optimisation.offload is None else torch.device("cpu")
    base, chosen = named_parts(model, adapter, offline=offline)
    source = embedded_folder() if str(model) == EMBEDDED else base
    is_folder = Path(source).is_dir()
    adapter_source = hub_path(chosen, offline=offline) if chosen is not None else Path(source) / "adapter"
    if chosen is None and not (is_folder and adapter_source.is_dir()):
        raise WeightsNotFound(f"{model} has no folder `adapter`; say which identity adapter to use with adapter=PATH")
    adapter_folder = adapter_source.parent if adapter_source.is_file() else adapter_source
    with quiet_loading(bars=not Path(source).exists()):
        loaded = load_adapter(adapter_source)
        pipeline = _pipeline(source, offline=offline, config=base_config, **loading_arguments(optimisation))
        pipeline.to(*((home,) if optimisation.quantization else (home, torch.float32)))
        fuse_loras(pipeline, loras, offline=offline)
        load_textual_inversions(pipeline, textual_inversions, offline=offline)
        _join(pipeline, loaded, optimisation, dtype=weights)
    return Parts(
        pipeline,
        loaded,
        analyzer or analyzer_for(source, loaded, adapter_folder, device=str(place), offline=offline),
        Origin(
            model=EMBEDDED if str(model) == EMBEDDED else str(absolute(model)),
            adapter=None if adapter is None else str(adapter_source.resolve()),
            image_encoder=absolute(image_encoder),
            base_config=absolute(base_config),
            loras=absolute_loras(loras),
            textual_inversions=tuple(str(absolute(each)) for each in textual_inversions),
            optimisation=optimisation,
        ),
    )


def _join(pipeline: Any, adapter: IdentityAdapter, optimisation: Optimisation, *, dtype: torch.dtype) -> None:
    """Attach the adapter and give the U-Net its type."""
    adapter.facial_encoder.to(torch.float32)
    adapter.attach(pipeline, merge_loras=optimisation.merges_loras)
    optimise(pipeline, optimisation)
    adapter.set_scale(0.0)  # base weights and LoRAs are rounded apart, so that merging them again gives the same
    if optimisation.quantization is None:
        pipeline.unet.to(dtype=dtype)


def _pipeline(source: str | Path, *, offline: bool, config: str | Path | None, **options: Any) -> Any:
    """A stock pipeline from a single file, a folder or a hub id."""
    if is_single_file(source):
        return load_single_file(source, config=config)
    return load_base_folder(source, offline=offline, **options)


def load_controlnets(sources: Sequence[str], *, dtype: torch.dtype, offline: bool) -> list[Any]:
    """ControlNets from folders or hub ids.

    Args:
        sources: where they are.
        dtype: of their weights; that of the U-Net is as fast and as large as it.
        offline: never download.

    Raises:
        WeightsNotFound: one is missing, or is no ControlNet.
    """
    from diffusers import ControlNetModel
    from safetensors import SafetensorError

    networks = []
    for source in sources:
        announce(source, "ControlNet", offline=offline)
        try:
            with quiet_loading(bars=not Path(source).is_dir()):
                network = ControlNetModel.from_pretrained(source, local_files_only=offline, torch_dtype=dtype)
                networks.append(network.eval())
        except (OSError, ValueError, SafetensorError) as error:
            raise WeightsNotFound(
                f"no ControlNet at {source} ({first_line(error)}); give a folder or a hub id"
            ) from error
    return networks


@contextmanager
def quiet_loading(*, bars: bool = False) -> Iterator[None]:
    """Without the libraries' advice on how others should have saved a model.

    Args:
        bars: keep the libraries' progress bars, which downloads need.
    """
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # before diffusers imports the rest of transformers
    from diffusers.utils import logging as diffusers_logging

    diffusers_level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    hidden = [each for each in (transformers_logging, diffusers_logging) if each.is_progress_bar_enabled() and not bars]
    for each in hidden:
        each.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        diffusers_logging.set_verbosity(diffusers_level)
        for each in hidden:
            each.enable_progress_bar()


def analyzer_for(
    source: str | Path, adapter: IdentityAdapter, adapter_folder: Path, *, device: str, offline: bool
) -> FaceAnalyzer | None:
    """The face models that belong to an adapter, or None when they cannot be known.

    Args:
        source: folder of a whole model, whose parser an aligned adapter uses.
        adapter: says what it was trained with.
        adapter_folder: where a released adapter's parser is looked for.
        device: of the parser.
        offline: download nothing.
    """
    config = adapter.config
    if config.mode == "official":
        weights = parser_weights(adapter_folder)
        if weights is None:
            return None
        return FaceAnalyzer(
            arcface_detector(channel_order=config.quirks.channel_order, offline=offline),
            BisenetParser(weights, size=config.quirks.parser_size or 512, device=device),
            None,  # the caption is that of the prompt style
        )
    if (Path(source) / "parser" / "config.json").is_file():
        return FaceAnalyzer.from_pretrained(source, device=device)
    return None
