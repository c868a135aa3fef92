"""The process that runs this, among those that a launcher started."""

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def this_process() -> PartialState:
    """Its device, its number and the number of processes; the first call connects them."""
    without_accelerator = not torch.accelerator.is_available()
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or without_accelerator)
