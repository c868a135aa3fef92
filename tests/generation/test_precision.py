"""Pipelines that a user made, of 16 bits in part or as a whole, and ControlNets of another type than the U-Net."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import tiny_adapter, tiny_controlnet, tiny_pipeline, tiny_sdxl

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator

PROMPT = "a portrait of a person"
PICTURE = Image.new("RGB", (64, 64), (90, 120, 150))


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    return tiny_pipeline(tmp_path / "tiny")


@pytest.mark.parametrize("whole", [True, False], ids=["pipeline", "unet"])
@pytest.mark.parametrize("base", ["sd", "sdxl"])
def test_a_pipeline_of_16_bits_merges_and_is_left_as_it_was(
    pipeline: Any, drawn: FaceAnalysis, base: str, whole: bool
) -> None:
    pipeline, adapter = tiny_sdxl(pipeline) if base == "sdxl" else (pipeline, tiny_adapter(pipeline))
    (pipeline if whole else pipeline.unet).to(torch.bfloat16)
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    generator = PortraitGenerator(pipeline, adapter, analyzer=None)
    options = {"steps": 3, "size": (64, 64), "scheduler": "ddim", "guidance": 3.0}
    merged, never = (generator.generate(drawn, PROMPT, merge_step=step, **options)[0] for step in (0, 2))
    assert merged.image.tobytes() != never.image.tobytes()
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    generator.generate(drawn, PROMPT, latents=start, **options)
    adapter.detach()
    after = pipeline.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(value.dtype == after[key].dtype and torch.equal(value, after[key]) for key, value in before.items())
    assert not pipeline.unet._forward_pre_hooks


def test_what_the_loop_holds_keeps_its_type_at_the_merge_step(pipeline: Any, drawn: FaceAnalysis) -> None:
    """The safety checker is given pictures in the type of the prompt's embeddings."""
    adapter = tiny_adapter(pipeline)
    generator = PortraitGenerator(pipeline.to(torch.bfloat16), adapter, analyzer=None)
    seen: list[torch.dtype] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"].dtype), with_kwargs=True
    )
    generator.generate(drawn, PROMPT, steps=2, merge_step=0)
    handle.remove()
    assert seen == [torch.bfloat16] * 2


@pytest.mark.parametrize(("weights", "control"), [("float32", "bfloat16"), ("bfloat16", "float32")])
@pytest.mark.parametrize("count", [1, 2])
def test_a_controlnet_runs_in_its_own_type_and_keeps_it(
    tiny_model: Path, drawn: FaceAnalysis, weights: str, control: str, count: int
) -> None:
    generator = PortraitGenerator.from_pretrained(tiny_model, dtype=weights)
    dtype = getattr(torch, control)
    networks = [tiny_controlnet(generator.pipeline.unet).to(dtype) for _ in range(count)]
    state = {key: value.clone() for key, value in networks[0].state_dict().items()}
    request = {"task": "controlnet", "inputs": {"image": [PICTURE] * count}, "steps": 2}
    with_control = generator.generate(drawn, PROMPT, components={"controlnet": networks}, **request)[0]
    assert with_control.image.tobytes() != generator.generate(drawn, PROMPT, steps=2)[0].image.tobytes()
    assert all(torch.equal(value, networks[0].state_dict()[key]) for key, value in state.items())
    assert networks[0].dtype == dtype
