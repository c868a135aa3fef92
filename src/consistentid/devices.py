"""What a device computes fast, and on how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: few CPUs have the instructions, the others emulate them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch computes on so many threads inside the block; sums are split by thread, so the last bits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
