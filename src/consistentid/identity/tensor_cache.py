"""Computed tensors by key: in memory while the process lives, and on the disk for the next one."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from consistentid.identity.checksum import checksum
from consistentid.memory import Memory

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
_CHECKSUM = "checksum"
FOLDER_VARIABLE = "CONSISTENTID_CACHE"


def default_folder() -> Path:
    """`$CONSISTENTID_CACHE`, else `consistentid` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "consistentid"


class TensorCache:
    """Computes what it does not know, and keeps it.

    Files are written whole or not at all, readable by their owner alone, and named by a hash of the key. A file that
    cannot be read counts as missing and is written again; a disk that cannot be written to is told once in the log.

    Args:
        folder: for the files; None: only in memory.
        in_memory: results kept in memory, the least recently used forgotten first.
        on_disk: likewise in the folder.
    """

    def __init__(self, folder: Path | None = None, *, in_memory: int = 4, on_disk: int = 256) -> None:
        self.folder = folder
        self.on_disk = on_disk
        self._values: Memory[Tensors] = Memory(in_memory)

    def get(self, key: object, compute: Callable[[], Tensors], *, keep_file: bool = True) -> Tensors:
        """The tensors of a key.

        Args:
            key: whose `repr` says all that the tensors depend on.
            compute: makes them; called when they are not known.
            keep_file: whether they may be read from and written to the disk.

        Returns:
            The tensors, to be read only; from the disk they come on the CPU.
        """
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        folder = self.folder if keep_file else None
        path = None if folder is None else folder / f"{name}.safetensors"
        return self._values.get(name, lambda: self._from_disk(path, compute))

    def forget(self) -> None:
        """Drop what is in memory; the files stay."""
        self._values.clear()

    def _from_disk(self, path: Path | None, compute: Callable[[], Tensors]) -> Tensors:
        value = None if path is None else _read(path)
        if value is None:
            value = compute()
            if path is not None:
                self._write(path, value)
        return value

    def _write(self, path: Path, value: Tensors) -> None:
        from safetensors.torch import save

        tensors = {
            key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in value.items()
        }
        data = save(tensors, metadata={_CHECKSUM: checksum(tensors)})
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")  # mode 0600
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(part, path)
            self._trim(path.parent)
        except OSError as error:
            logger.warning("cannot keep the conditioning in %s (%s); it stays in memory only", path.parent, error)
            self.folder = None

    def _trim(self, folder: Path) -> None:
        files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in files[: max(0, len(files) - self.on_disk)]:
            file.unlink(missing_ok=True)


def _read(path: Path) -> Tensors | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        value: Tensors = load(data)
        if _metadata(data).get(_CHECKSUM) != checksum(value):
            raise SafetensorError("its checksum is wrong")
        os.utime(path)  # used now
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s); its contents are computed again", path, error)
        return None
    return value


def _metadata(data: bytes) -> dict[str, str]:
    """The header's free part: safetensors files start with the header's length in 8 bytes."""
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__", {})
