"""Time of the embedded model with identity against the plain pipeline on the same weights, as a ratio.

Usage: python benchmarks/embedded_speed.py [--photo FILE] [--rounds 5] [--steps 30] [--images 4]

Both make the same number of pictures with the same scheduler, steps and guidance, in turns; the fastest round of each
counts. Ours begins with the photo, which lacks one more row in every round, so that nothing is remembered.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline

from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import embedded_folder
from consistentid.generation.optimisation import Optimisation, optimise
from consistentid.generation.precision import dtype_for, in_own_precision
from consistentid.generation.presets import PRESETS
from consistentid.generation.schedulers import scheduler_named
from consistentid.images import load_photo

PROMPT = "a portrait photo of a person"
SAMPLE = Path(__file__).parents[1] / "examples" / "photos" / "synthetic-woman.jpg"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=SAMPLE)
    for name, default in (("rounds", 5), ("steps", 30), ("images", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    preset = PRESETS["embedded"]
    generator = PortraitGenerator.from_pretrained("embedded", cache=False)
    pipeline = StableDiffusionPipeline.from_pretrained(embedded_folder())
    assert preset.scheduler is not None
    pipeline.scheduler = scheduler_named(preset.scheduler, like=pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    optimise(pipeline, Optimisation())  # memory layout and type of the weights as in the generator
    pipeline.unet.to(dtype=dtype_for("auto", pipeline.device))
    photo = np.asarray(load_photo(options.photo))

    def plain() -> None:
        with in_own_precision(pipeline.unet):
            pipeline(
                PROMPT,
                num_images_per_prompt=options.images,
                num_inference_steps=options.steps,
                guidance_scale=preset.guidance,
            )

    def ours(cut: int) -> None:
        generator.generate(photo[cut:], PROMPT, num_images=options.images, steps=options.steps)

    plain()  # warm
    ours(0)
    rounds = [(seconds(plain), seconds(lambda cut=cut: ours(cut))) for cut in range(1, options.rounds + 1)]  # type: ignore[misc]
    stock, own = (min(times) for times in zip(*rounds, strict=True))
    print(f"plain pipeline {stock:.2f} s, from photo to portraits {own:.2f} s, ratio {own / stock:.3f}")


if __name__ == "__main__":
    main()
