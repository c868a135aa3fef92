"""ControlNets are brought to where the pipeline computes, and mistakes with them are one sentence."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from tiny import tiny_adapter, tiny_controlnet, tiny_pipeline, tiny_sdxl

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.tasks import TASKS, pipeline_for

PROMPT = "a portrait of a person"
PICTURE = Image.new("RGB", (64, 64), (90, 120, 150))
MASKED = {"image": PICTURE, "mask_image": PICTURE.convert("L")}


@pytest.mark.parametrize("count", [1, 2])
def test_controlnets_go_to_the_device_of_the_pipeline(tmp_path: Path, count: int) -> None:
    pipeline = tiny_pipeline(tmp_path)
    networks = [tiny_controlnet(pipeline.unet) for _ in range(count)]
    given = networks[0] if count == 1 else networks
    runner = pipeline_for(TASKS["controlnet"], pipeline.to("meta"), components={"controlnet": given})
    assert {value.device.type for value in runner.controlnet.parameters()} == {"meta"}


@pytest.mark.parametrize(("networks", "pictures"), [(2, PICTURE), (2, [PICTURE] * 3), (1, [PICTURE] * 2)])
@pytest.mark.parametrize("task", ["controlnet", "controlnet-inpaint"])
def test_every_controlnet_needs_its_picture(
    generator: PortraitGenerator, drawn: FaceAnalysis, task: str, networks: int, pictures: Any
) -> None:
    given = [tiny_controlnet(generator.pipeline.unet)] * networks
    inputs = {"image": pictures} if task == "controlnet" else {**MASKED, "control_image": pictures}
    count = len(pictures) if isinstance(pictures, list) else 1
    message = f"needs one control image; ControlNets given: {networks}, control images given: {count}"
    for components in (given, diffusers.MultiControlNetModel(given)):
        with pytest.raises(InvalidSettings, match=message):
            generator.generate(drawn, PROMPT, task=task, inputs=inputs, components={"controlnet": components}, steps=1)


def test_a_list_of_one_controlnet_takes_one_picture(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    components = {"controlnet": [tiny_controlnet(generator.pipeline.unet)]}
    generator.generate(drawn, PROMPT, task="controlnet", inputs={"image": PICTURE}, components=components, steps=1)


def test_a_controlnet_of_another_base_is_refused(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    own = tiny_controlnet(generator.pipeline.unet)
    other = tiny_controlnet(tiny_sdxl(generator.pipeline)[0].unet)
    request = {"task": "controlnet", "inputs": {"image": [PICTURE] * 2}, "components": {"controlnet": [own, other]}}
    with pytest.raises(InvalidSettings, match="a ControlNet reads texts of width 128, the base model's U-Net of 64"):
        generator.generate(drawn, PROMPT, steps=1, **request)


def test_a_guidance_that_the_pipeline_cannot_hand_over_is_refused(tmp_path: Path, drawn: FaceAnalysis) -> None:
    pipeline = tiny_pipeline(tmp_path)
    plain = {key: value for key, value in pipeline.unet.config.items() if not key.startswith("_")}
    torch.manual_seed(0)
    distilled = diffusers.UNet2DConditionModel.from_config({**plain, "time_cond_proj_dim": 16}).eval()
    pipeline.register_modules(unet=distilled)
    generator = PortraitGenerator(pipeline, tiny_adapter(pipeline), analyzer=None)
    request = {
        "task": "controlnet-inpaint",
        "inputs": {**MASKED, "control_image": PICTURE},
        "components": {"controlnet": tiny_controlnet(pipeline.unet)},
    }
    with pytest.raises(InvalidSettings, match="controlnet-inpaint cannot hand its guidance"):
        generator.generate(drawn, PROMPT, steps=2, guidance=8.0, **request)
    assert generator.generate(drawn, PROMPT, steps=2, guidance=1.0, **request)
