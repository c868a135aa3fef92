"""What a device computes fast."""

import torch


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: few CPUs have the instructions, the others emulate them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())
