"""Files of weights -> tensors by name; whatever is wrong with a file, code in it never runs."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from consistentid.errors import WeightsNotFound


def read_weights(path: Path) -> Mapping[str, object]:
    """The content of a `.safetensors` file or of a pickle read as weights only, mapped from the disk where possible.

    Raises:
        WeightsNotFound: the file is missing, damaged, holds code, or is no dictionary.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path} does not exist; download it from the hub repository JackAILab/ConsistentID")
    return read_safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file.

    Raises:
        WeightsNotFound: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsNotFound(f"{path} is no safetensors file, or is incomplete; download it again") from error


def _unpickled(path: Path) -> Mapping[str, object]:
    try:  # files of torch 1.6 and later are zip files, which can be mapped instead of read
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # bytes that are no pickle are read as operations, which fail in any way
        if "Unsupported global" in str(error):
            raise WeightsNotFound(f"{path} holds code, which was not run; get the weights as safetensors") from error
        raise WeightsNotFound(f"{path} is no checkpoint of tensors, or is incomplete; download it again") from error
    if not isinstance(loaded, Mapping):
        raise WeightsNotFound(f"{path} holds a {type(loaded).__name__} instead of named tensors")
    return loaded
