"""Attach, generate with any task and any settings, detach: the pipeline is bit for bit what it was."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_adapter, tiny_pipeline, tiny_sdxl

from consistentid.errors import GenerationCancelled, InvalidSettings, WeightsNotFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.tasks import TASKS
from consistentid.identity.adapter import IdentityAdapter

PICTURE = Image.effect_noise((64, 64), 80).convert("RGB")
INPUTS: dict[str, dict[str, Any]] = {
    "text-to-image": {},
    "img2img": {"image": PICTURE, "strength": 0.8},
    "inpaint": {"mask_image": "face", "mask_feather": 0.1},
    "controlnet": {"image": [PICTURE, PICTURE]},
    "controlnet-inpaint": {"image": PICTURE, "mask_image": PICTURE.convert("L"), "control_image": PICTURE},
}
SETTINGS = st.fixed_dictionaries(
    {
        "scheduler": st.sampled_from(["ddim", "euler_a", "heun", "lcm"]),
        "guidance": st.sampled_from([0.0, 1.0, 4.0]),
        "merge_step": st.sampled_from([-1, 0, 5]),
        "identity_scale": st.sampled_from([0.0, 0.7]),
        "num_images": st.sampled_from([1, 2]),
        "seed": st.integers(0, 9),
    }
)


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, IdentityAdapter]:
    pipeline = tiny_pipeline(tmp_path_factory.mktemp("tiny"))
    return (pipeline, tiny_adapter(pipeline)) if request.param == "sd15" else tiny_sdxl(pipeline)


@pytest.fixture(scope="module")
def controlnet(base: tuple[Any, IdentityAdapter]) -> Any:
    torch.manual_seed(0)
    return diffusers.ControlNetModel.from_unet(base[0].unet)


def snapshot(pipeline: Any) -> dict[str, Any]:
    """Everything that a run could leave behind: weights, layers, processors, hooks, flags, settings."""
    seen: dict[str, Any] = {"components": {name: id(part) for name, part in pipeline.components.items()}}
    for name, module in pipeline.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        seen[f"{name} config"] = dict(module.config) if hasattr(module.config, "items") else module.config.to_dict()
        seen[f"{name} layers"] = [(key, type(layer), layer.training) for key, layer in module.named_modules()]
        if not name.startswith("text_encoder"):  # transformers adds hooks of its own at the first call
            hooks = [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in module.modules()]
            seen[f"{name} hooks"] = hooks
        seen[f"{name} flags"] = [
            (key, value.requires_grad, value.data_ptr()) for key, value in module.named_parameters()
        ]
        seen[f"{name} weights"] = {key: value.clone() for key, value in module.state_dict().items()}
    seen["processors"] = {key: id(value) for key, value in pipeline.unet.attn_processors.items()}
    seen["scheduler"] = dict(pipeline.scheduler.config)
    return seen


def assert_same(pipeline: Any, before: dict[str, Any]) -> None:
    after = snapshot(pipeline)
    for name, value in before.items():
        if name.endswith(" weights"):
            assert value.keys() == after[name].keys()
            assert all(torch.equal(value[key], after[name][key]) for key in value), name
        else:
            assert value == after[name], name


@pytest.mark.parametrize("task", TASKS)
@given(chosen=SETTINGS)
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_task_leaves_the_pipeline_as_it_was(
    base: tuple[Any, IdentityAdapter], controlnet: Any, drawn: FaceAnalysis, task: str, chosen: dict[str, Any]
) -> None:
    pipeline, adapter = base
    networks = [controlnet, controlnet] if task == "controlnet" else controlnet
    components = {"controlnet": networks} if TASKS[task].components else {}
    before = snapshot(pipeline)
    generator = PortraitGenerator(pipeline, adapter, analyzer=None)
    options = {**chosen, "steps": 2, "size": (64, 64)}
    generator.generate(drawn, "a person", task=task, inputs=INPUTS[task], components=components, **options)
    adapter.detach()
    assert_same(pipeline, before)


def test_a_cancelled_or_refused_run_leaves_no_trace(base: tuple[Any, IdentityAdapter], drawn: FaceAnalysis) -> None:
    pipeline, adapter = base
    before = snapshot(pipeline)
    generator = PortraitGenerator(pipeline, adapter, analyzer=None)
    with pytest.raises(GenerationCancelled):
        generator.generate(drawn, "a person", steps=3, size=(64, 64), cancel=lambda: True)
    with pytest.raises(InvalidSettings):
        generator.generate(drawn, "a person", task="inpaint", inputs={"mask_image": "hair"}, size=(64, 64))
    adapter.detach()
    assert_same(pipeline, before)


def test_an_adapter_of_another_base_is_refused_in_one_sentence(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path)
    xl, xl_adapter = tiny_sdxl(pipeline)
    for target, adapter in ((pipeline, xl_adapter), (xl, tiny_adapter(pipeline))):
        before = snapshot(target)
        with pytest.raises(InvalidSettings, match="use the base model that the adapter was trained for"):
            PortraitGenerator(target, adapter, analyzer=None)
        assert not adapter.is_attached
        assert_same(target, before)


def test_an_adapter_of_another_layout_is_refused_by_its_tensors(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path)
    config = {**pipeline.unet.config, "layers_per_block": 2}
    other = diffusers.UNet2DConditionModel.from_config(config)
    adapter = IdentityAdapter.new(tiny_adapter(pipeline).config, other)
    before = snapshot(pipeline)
    with pytest.raises(WeightsNotFound, match=r"unknown \d+\.to_q_lora"):
        adapter.attach(pipeline)
    assert_same(pipeline, before)
