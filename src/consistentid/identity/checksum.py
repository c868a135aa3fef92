"""Whether weights are the same as before, told fast enough to ask every time."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_COLUMNS = 512


class WeightsChecksum:
    """A checksum over every bit of many tensors, remembered until one of them changes.

    Gigabytes a second, because it adds the words of a tensor up in 512 columns and hashes only the sums. It tells other
    weights from the same, for caches; it is no proof against somebody who looks for a collision (for that there is
    `generation.fingerprint`).
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], str]] = {}

    def of(self, name: str, tensors: Mapping[str, Tensor]) -> str | None:
        """The checksum of named tensors; None when some are not in memory (offloaded to the meta device).

        Args:
            name: under which the result is remembered.
            tensors: for example a state dict.
        """
        if any(tensor.is_meta for tensor in tensors.values()):
            return None
        state = tuple((key, tensor.data_ptr(), tensor.dtype, _version(tensor)) for key, tensor in tensors.items())
        known = self._known.get(name)
        if known is None or known[0] != state:
            known = self._known[name] = (state, checksum(tensors))
        return known[1]


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal checksum of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in _summed(tensor.detach()):
            digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()


def _summed(tensor: Tensor) -> tuple[Tensor, ...]:
    """Column sums (modulo 2^64) of the 8-byte words, and the bytes that do not fill a row."""
    raw = tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor.new_zeros(0, dtype=torch.uint8)
    whole = len(raw) // (8 * _COLUMNS) * (8 * _COLUMNS)
    words = raw[:whole].view(torch.int64).view(-1, _COLUMNS)
    return words.sum(0), raw[whole:]


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place."""
    return None if tensor.is_inference() else tensor._version
