"""What eq. 1 costs in a training step, and what latents and features computed before save.

Usage: python benchmarks/training_step.py [--base embedded|sd15] [--rounds 8]

Steps with and without eq. 1 take turns on the same batch; the medians count. Memory is what the peak of a process with
one kind of step lies above the loaded models. SD 1.5 has its real layout, random weights and one photo of 512 x 512.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from consistentid.dataset.samples import Batch
from consistentid.devices import is_fast_in_bfloat16
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers
from consistentid.identity.config import AdapterConfig, Family, Quirks
from consistentid.training.adapter.base import EMBEDDED, BaseModel, load_base, starting_adapter
from consistentid.training.prediction import TrainingModels
from consistentid.training.share import Share
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig

sys.path.insert(0, str(Path(__file__).parent))
_KEEP = {"drop_all": 0, "drop_text": 0, "drop_identity": 0, "drop_regions": 0, "drop_region": 0}
_BATCH = {"embedded": 24, "sd15": 1}
_BLOCKS = {
    "embedded": ["down_blocks.1", "up_blocks.1"],
    "sd15": ["down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2"],
}


def base_model(name: str) -> BaseModel:
    """The embedded model, or SD 1.5 with random weights."""
    if name == "embedded":
        return load_base(name)
    import full_size
    from diffusers import DDPMScheduler

    pipeline = full_size.sd15_pipeline()
    pipeline.unet.train()
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return BaseModel(pipeline.unet, pipeline.vae, (pipeline.text_encoder,), (pipeline.tokenizer,), scheduler)


def stepper(name: Family, base: BaseModel) -> Callable[[float], float]:
    """A function that makes a step with a weight of eq. 1 and returns its seconds."""
    config = (
        AdapterConfig.load(EMBEDDED / "adapter" / "config.json")
        if name == "embedded"
        else AdapterConfig.preset(name, mode="aligned", quirks=Quirks())
    )
    adapter = starting_adapter(config, base.unet, start_from=None, seed=0)
    adapter.attach(base.unet, trainable=True)
    recorder = AttentionRecorder(base.unet, cross_attention_layers(base.unet, blocks=_BLOCKS[name]))
    features = torch.randn(config.image_tokens, config.image_dim)
    ids = torch.zeros(77, dtype=torch.long)
    models = TrainingModels(base.unet, base.text_encoders, adapter, base.scheduler, features, (ids,), recorder)
    batch = random_batch(_BATCH[name], base, config)
    trained = [p for group in adapter.parameters_by_group().values() for p in group.values()]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    bfloat16 = is_fast_in_bfloat16(torch.device("cpu"))

    def step(weight: float) -> float:
        settings = StepConfig(**_KEEP, localisation_weight=weight)
        draws = draw_step(tuple(batch.latents.shape), base.scheduler, Share(0, 0).generator(), config=settings)
        start = time.perf_counter()
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            losses = training_step(models, batch, draws, config=settings)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def random_batch(count: int, base: BaseModel, config: AdapterConfig) -> Batch:
    """Numbers of the right shapes, and masks like those of a face."""
    side, channels = base.unet.config.sample_size, base.unet.config.in_channels
    masks = torch.zeros(count, 5, side, side)
    masks[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    return Batch(
        latents=torch.randn(count, channels, side, side),
        ids=torch.randint(100, (count, 77)),
        positions=torch.arange(5, 10).expand(count, 5),
        valid=torch.ones(count, 5, dtype=torch.bool),
        identity_embedding=torch.randn(count, config.identity_dim),
        whole_features=torch.randn(count, config.image_tokens, config.image_dim),
        region_features=torch.randn(count, 5, config.image_tokens, config.image_dim),
        foreground=torch.ones(count, 1, side, side),
        region_masks=masks,
        stranger=torch.zeros(count, dtype=torch.bool),
    )


def memory(what: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at most."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines[what].split()[0]) / 1e3


def memory_of(name: str, weight: float) -> float:
    """MB that steps with this weight take at most, measured in a process of their own."""
    command = [sys.executable, __file__, "--base", name, "--memory", str(weight)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(name: Family, weight: float) -> None:
    """Print how far the peak of some steps lies above the loaded models."""
    step = stepper(name, base_model(name))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = memory("VmRSS")
    for _ in range(4 if name == "embedded" else 1):
        step(weight)
    print(memory("VmHWM") - before)


def frozen_networks(base: BaseModel) -> float:
    """Seconds that the autoencoder and ViT-H take for one photo: what computing them before saves in a step."""
    import full_size

    encoder = full_size.clip_vit_h()
    start = time.perf_counter()
    base.latents(torch.zeros(1, 3, 512, 512, dtype=torch.uint8))
    encoder.encode(torch.zeros(6, 3, 224, 224))
    return time.perf_counter() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=("embedded", "sd15"), default="embedded")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--memory", type=float, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory is not None:
        measure_memory(options.base, options.memory)
        return
    base = base_model(options.base)
    step = stepper(options.base, base)
    with FlopCounterMode(display=False) as flops:
        step(0.01)
    print(f"{flops.get_total_flops() / _BATCH[options.base] / 1e12:.3f} TFLOP for a photo, forth and back, with eq. 1")
    step(0.0)  # warm
    rounds = [(step(0.01), step(0.0)) for _ in range(options.rounds)]
    with_loss, without = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"step {without:.2f} s, with eq. 1 {with_loss:.2f} s: ratio {with_loss / without:.3f}")
    if options.base == "sd15":
        frozen = frozen_networks(base)
        print(
            f"autoencoder and image encoder {frozen:.2f} s: a step without them is {without / (without + frozen):.3f}"
        )
    del base, step
    memory = {weight: memory_of(options.base, weight) for weight in (0.0, 0.01)}
    print(f"memory of a step {memory[0.0]:.0f} MB, with eq. 1 {memory[0.01]:.0f} MB: {memory[0.01] / memory[0.0]:.3f}")


if __name__ == "__main__":
    main()
