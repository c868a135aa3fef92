"""Time and memory at the real layouts of SD 1.5 and SDXL, against the plain pipeline and the release's way, as ratios.

Usage: python benchmarks/speed.py [--steps 8] [--size 256] [--threads 2] [--clock wall|cpu] [--out docs/benchmarks.md]

Weights are random. Times that are compared are measured in one process; memory is the high-water mark of a
process of its own for each of the two ways.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import full_size
import torch
from full_size import num_bytes

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.optimisation import Optimisation, optimise
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.image_encoder import ClipImageEncoder
from consistentid.identity.layout import attention_layers
from consistentid.identity.reference import reference_images

PROMPT = "A man, in a forest, adventuring, cinematic photo"
NEGATIVE = "monochrome, lowres, bad anatomy"


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # cpu: for machines that do something else as well


class Times(dict[str, float]):
    """Seconds by name; each is told on stderr as soon as it is known."""

    clock = staticmethod(time.perf_counter)

    def take(self, name: str, work: Callable[[], object], *, repeats: int = 1) -> None:
        """The shortest of some repeats."""
        self[name] = min(self._once(work) for _ in range(repeats))
        print(f"{name}: {self[name]:.2f} s", file=sys.stderr, flush=True)

    def _once(self, work: Callable[[], object]) -> float:
        start = self.clock()
        work()
        return self.clock() - start


def face() -> FaceAnalysis:
    """The drawn face of the parity fixtures; all five regions are in it."""
    sys.path.insert(0, str(full_size.TOKENIZER.parent))
    from fixtures import face_inputs

    return FaceAnalysis.from_parts(*face_inputs(512))


def plain(pipeline: Any, *, steps: int, size: int) -> None:
    """The stock pipeline's denoising: embeddings are given, nothing is decoded."""
    text = torch.zeros(1, 77, pipeline.unet.config.cross_attention_dim)
    pipeline(
        prompt_embeds=text, negative_prompt_embeds=text, num_inference_steps=steps, guidance_scale=5.0, width=size,
        height=size, output_type="latent", generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


@torch.no_grad()
def conditioned_one_by_one(conditioner: Conditioner, analysis: FaceAnalysis) -> None:
    """What the release does: 12 images through all layers one after the other, 5 zero images through the FacialEncoder.

    Its projector, which runs besides, is left out; ours is not.
    """
    encoder = conditioner.image_encoder
    assert isinstance(encoder, ClipImageEncoder)

    def states(pixels: torch.Tensor) -> torch.Tensor:
        return encoder.model(pixels, output_hidden_states=True).hidden_states[-2]

    images = reference_images(analysis, conditioner.adapter.config.quirks)
    whole = [states(encoder.pixels([images.whole]))]
    regions = torch.cat([states(encoder.pixels([image])) for image in images.regions.values()])
    zeros = torch.cat([states(torch.zeros(1, 3, encoder.image_size, encoder.image_size)) for _ in regions])
    whole.append(states(torch.zeros(1, 3, encoder.image_size, encoder.image_size)))
    prompt = conditioner.facial_prompt(PROMPT, analysis, regions=tuple(images.regions))
    text = conditioner.text_encoders[0]
    embedded = [text(ids).last_hidden_state for ids in (prompt.ids, prompt.text_only_ids, prompt.text_only_ids)]
    positions, valid = torch.tensor([prompt.positions]), torch.ones(1, len(prompt.positions), dtype=torch.bool)
    for given, features in ((embedded[0], regions), (embedded[2], zeros)):
        conditioner.adapter.facial_encoder(given, features[None, : len(prompt.positions)], positions, valid)


def generation(pipeline: Any, adapter: Any, encoder: Any) -> PortraitGenerator:
    if not adapter.is_attached:
        adapter.attach(pipeline, merge_loras=True)
    conditioner = Conditioner.from_pipeline(pipeline, adapter, image_encoder=encoder)
    return PortraitGenerator(pipeline, adapter, analyzer=None, conditioner=conditioner)


def asked(options: argparse.Namespace, *, seed: int = 0) -> GenerationRequest:
    settings = GenerationSettings(
        steps=options.steps, size=(options.size, options.size), guidance=5.0, scheduler="ddim", seed=seed,
        negative_prompt=NEGATIVE, merge_step=options.steps // 2,
    )  # fmt: skip
    return GenerationRequest(options.face, PROMPT, settings)


def measure(options: argparse.Namespace) -> Times:
    """Seconds of everything, in one process."""
    pipeline, encoder = full_size.sd15_pipeline(), full_size.clip_vit_h()
    adapter = full_size.adapter("sd15", pipeline.unet)
    options.face, times = face(), Times()
    times.clock = CLOCKS[options.clock]
    generator = generation(pipeline, adapter, encoder)
    conditioner = generator.conditioner
    times.take("conditioning, one by one", lambda: conditioned_one_by_one(conditioner, options.face))
    times.take("checksum of the weights, once per process", conditioner.weights_checksum)
    times.take("zero image, once per installation", lambda: conditioner.zero_features)
    times.take("conditioning, new photo", lambda: generator.prepare(asked(options)))
    prepared = generator.prepare(asked(options))
    adapter.detach()
    plain(pipeline, steps=1, size=options.size)  # warm
    times.take("plain denoising", lambda: plain(pipeline, steps=options.steps, size=options.size))
    adapter.attach(pipeline, merge_loras=True)
    times.take("hash of the weights for the record, once per process", lambda: generator.weights_sha256)
    adapter.set_scale(1.0)
    conditioner.weights_checksum()  # known in a process that did not detach
    times.take("our denoising", lambda: generator.render([prepared], output_type="latent"))
    times.take("second run, conditioning", lambda: generator.prepare(asked(options, seed=1)))
    variants(generator, times, options)
    return times


@torch.no_grad()
def variants(generator: PortraitGenerator, times: Times, options: argparse.Namespace) -> None:
    """One U-Net call with guidance and the adapter in it, and one decoding, in different ways."""
    pipeline, adapter = generator.pipeline, generator.adapter
    unet, vae = pipeline.unet, pipeline.vae
    step = unet_call(unet, adapter, size=options.size)
    text = torch.zeros(2, 77, unet.config.cross_attention_dim)

    def keys_and_values() -> None:
        for layer in attention_layers(unet):
            if layer.is_cross:
                layer.module.to_k(text), layer.module.to_v(text)

    def decode() -> None:
        vae.decode(torch.randn(1, 4, 80, 80))

    adapter.set_scale(1.0)
    times.take("step", step, repeats=2)
    times.take("key and value layers of a step", keys_and_values, repeats=3)
    optimise(pipeline, Optimisation(channels_last=False, attention_slicing=True))
    times.take("step, attention slicing", step, repeats=2)
    adapter.detach()
    times.take("decoding of 640 x 640", decode)
    optimise(pipeline, Optimisation(channels_last=False, vae_tiling=True))
    times.take("decoding of 640 x 640, tiled", decode)
    adapter.attach(pipeline, merge_loras=False)
    times.take("step, LoRAs beside", step, repeats=2)
    adapter.detach()
    adapter.attach(pipeline, merge_loras=True)
    optimise(pipeline, Optimisation())
    times.take("step, channels_last", step, repeats=2)
    optimise(pipeline, Optimisation(compile=True))
    times.take("first compiled step", step)
    times.take("step, channels_last, compiled", step, repeats=2)


def unet_call(
    unet: Any, adapter: Any, *, size: int, identity: bool = True, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """One call with guidance, with the identity tokens or as the plain U-Net."""
    width, side = unet.config.cross_attention_dim, size // 8
    latents, text = torch.randn(2, 4, side, side).to(dtype), torch.zeros(2, 77, width, dtype=dtype)
    tokens = torch.zeros(2, 4, width, dtype=dtype)
    given: dict[str, Any] = {}
    if unet.config.addition_embed_type == "text_time":
        given = {"text_embeds": torch.zeros(2, 1280, dtype=dtype), "time_ids": torch.zeros(2, 6)}

    def call() -> None:
        if not identity:
            unet(latents, 500, text, added_cond_kwargs=given)
            return
        with adapter.fixed_tokens(tokens):
            unet(latents, 500, text, added_cond_kwargs={**given, "image_embeds": [torch.zeros(2, 1, 1, dtype=dtype)]})

    return call


@torch.no_grad()
def sdxl(options: argparse.Namespace) -> Times:
    """Steps of SDXL's U-Net in bfloat16, alone and with the adapter."""
    dtype, times = torch.bfloat16, Times()
    times.clock = CLOCKS[options.clock]
    unet = full_size.unet("sdxl", dtype)
    adapter = full_size.adapter("sdxl", unet)
    adapter.load_state({key: value.to(dtype) for key, value in adapter.state().items()})
    adapter.facial_encoder.to(dtype)
    call = partial(unet_call, unet, adapter, size=options.size, dtype=dtype)
    call(identity=False)()  # warm
    times.take("SDXL, step of the plain U-Net", call(identity=False), repeats=2)
    adapter.attach(unet, merge_loras=True)
    adapter.set_scale(1.0)
    call()()
    times.take("SDXL, step with the adapter", call(), repeats=2)
    return times


def peak(options: argparse.Namespace, *, way: str) -> dict[str, float]:
    """High-water mark in bytes of a process that makes one picture, and the weights that only ours has."""
    pipeline = full_size.sd15_pipeline()
    if way == "plain":
        pipeline(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=1, width=options.size, height=options.size)
        return {"peak": high_water_mark()}
    encoder = full_size.clip_vit_h()
    adapter = full_size.adapter("sd15", pipeline.unet)
    options.face, options.steps = face(), 1
    weights = num_bytes(adapter.state().values()) + num_bytes(encoder.model.parameters())
    generation(pipeline, adapter, encoder).generate_batch([asked(options)])
    return {"peak": high_water_mark(), "weights": weights}


def high_water_mark() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def report(times: dict[str, float], memory: dict[str, dict[str, float]], options: argparse.Namespace) -> str:
    """The page of the documentation."""
    conditioning = times["conditioning, new photo"]
    whole = conditioning + times["our denoising"]
    again = times["second run, conditioning"]
    own, ours, stock = memory["ours"]["weights"], memory["ours"]["peak"], memory["plain"]["peak"]
    step, last = times["step"], times["step, channels_last"]
    both = conditioning + times["zero image, once per installation"]
    rows = [
        ("conditioning of a new photo / one by one", conditioning / times["conditioning, one by one"], "0.50"),
        ("the same with the zero image, first photo ever", both / times["conditioning, one by one"], "-"),
        ("whole / (plain denoising + conditioning)", whole / (times["plain denoising"] + conditioning), "1.10"),
        ("second run, conditioning / whole", again / (again + times["our denoising"]), "0.01"),
        ("(peak memory - adapter and image encoder) / plain", (ours - own) / stock, "1.15"),
        ("kept key and value layers / step", times["key and value layers of a step"] / step, "-"),
        ("step with LoRAs beside / merged", times["step, LoRAs beside"] / step, "-"),
        ("step with attention slicing / without", times["step, attention slicing"] / step, "-"),
        ("decoding in tiles / whole", times["decoding of 640 x 640, tiled"] / times["decoding of 640 x 640"], "-"),
        ("step in channels_last / contiguous", last / step, "-"),
        ("compiled step / not compiled", times["step, channels_last, compiled"] / last, "-"),
        (
            "SDXL, step with the adapter / plain",
            times["SDXL, step with the adapter"] / times["SDXL, step of the plain U-Net"],
            "-",
        ),
    ]
    table = "\n".join(f"| {name} | {ratio:.3f} | {limit} |" for name, ratio, limit in rows)
    measured = "\n".join(f"| {name} | {value:.2f} s |" for name, value in times.items())
    sizes = {"peak, plain pipeline": stock, "peak, ours": ours, "weights of adapter and image encoder": own}
    peaks = "\n".join(f"| {name} | {value / 2**30:.2f} GiB |" for name, value in sizes.items())
    return PAGE.format(
        table=table, measured=measured, peaks=peaks, machine=machine(options), steps=options.steps, size=options.size,
        threads=options.threads, clock=options.clock,
    )  # fmt: skip


PAGE = """# Benchmarks

SD 1.5 in its real layout with random weights, {steps} steps at {size} × {size}, batch 1, guidance, float32, and
SDXL's U-Net in bfloat16. Made by

```bash
python benchmarks/speed.py --steps {steps} --size {size} --threads {threads} --clock {clock} --out docs/benchmarks.md
```

on {machine}. Ratios are of one run: times that are compared were measured in one process, memory in one process for
each way. The machine was shared, so the seconds say little.

| ratio | measured | at most |
|---|---|---|
{table}

| part | measured |
|---|---|
{measured}
{peaks}

"One by one" is the release's way: 12 images through the whole image encoder, one after the other. The zero image of the
guidance branch is encoded once and kept on the disk ([speed and memory](speed.md)), so the first photo takes longer.
"""


def machine(options: argparse.Namespace) -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {os.cpu_count()} cores, {options.threads} threads, torch {version('torch')}"


def in_process(way: str, options: argparse.Namespace) -> dict[str, float]:
    """One part in a process of its own; a part that is there already is not measured again."""
    kept = options.parts / f"{way}.json"
    if not kept.is_file():
        command = [sys.executable, __file__, "--way", way]
        for name in ("steps", "size", "threads", "clock"):
            command += [f"--{name}", str(getattr(options, name))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(done.stdout.splitlines()[-1])
    result: dict[str, float] = json.loads(kept.read_text())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 8), ("size", 256), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", type=Path, default=Path("out/speed"), help="numbers of each part, to go on from")
    parser.add_argument("--way", choices=["times", "sdxl", "plain", "ours"], help="measure only this, print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way is not None:
        ways = {"times": measure, "sdxl": sdxl}
        measured = ways[options.way](options) if options.way in ways else peak(options, way=options.way)
        print(json.dumps(measured))
        return
    times = in_process("times", options) | in_process("sdxl", options)
    page = report(times, {way: in_process(way, options) for way in ("plain", "ours")}, options)
    print(page)
    if options.out is not None:
        options.out.write_text(page)


if __name__ == "__main__":
    main()
