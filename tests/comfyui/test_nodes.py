"""What the nodes leave as it was, how they join with ComfyUI's own, and what they refuse."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from consistentid.errors import InvalidPrompt, InvalidSettings, NoFaceFound, PromptRefused
from consistentid.generation.base_layouts import LAYOUTS
from consistentid.identity.checkpoint import official_ip_adapter_shapes
from consistentid.identity.config import AdapterConfig
from consistentid.identity.layout import attention_layers, layer_shapes

STEPS = 5


@pytest.fixture(autouse=True)
def _as_comfyui_runs_nodes():
    with torch.inference_mode():
        yield


@pytest.fixture
def pair(twins):
    return twins("sd15")


def applied(nodes: Any, pair: Any, face: Any, **options: Any) -> Any:
    given = {"prompt": "portrait in a garden", "negative_prompt": "", "identity_scale": 1.0, "merge": -1.0, **options}
    given = {"model": pair.model, "clip": pair.clip, "consistentid": pair.loaded, "face": face, **given}
    return nodes.ApplyConsistentID().apply(**given)


def sampled(
    model: Any, positive: Any, negative: Any, *, scheduler: str = "ddim_uniform", sampler: str = "euler"
) -> Any:
    import comfy.sample

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    return comfy.sample.sample(
        model, noise, STEPS, 3.0, sampler, scheduler, positive, negative, torch.zeros(1, 4, 8, 8),
        disable_pbar=True, seed=0,
    )  # fmt: skip


def encoded(pair: Any, text: str) -> Any:
    return pair.clip.encode_from_tokens_scheduled(pair.clip.tokenize(text))


def contexts(model: Any) -> tuple[Any, list[tuple[float, torch.Tensor]]]:
    """A model that notes the noise level and the text of the positive rows of every call."""
    seen: list[tuple[float, torch.Tensor]] = []

    def note(apply: Any, given: dict[str, Any]) -> torch.Tensor:
        row = given["cond_or_uncond"].index(0) if 0 in given["cond_or_uncond"] else None
        if row is not None:
            seen.append((float(given["timestep"][0]), given["c"]["c_crossattn"][row].clone()))
        return apply(given["input"], given["timestep"], **given["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(note)
    return watched, seen


def test_the_plain_model_is_what_it_was(nodes, pair, drawn):
    plain = encoded(pair, "a tree"), encoded(pair, "")
    before = sampled(pair.model, *plain)
    weights = {key: value.clone() for key, value in pair.model.model.diffusion_model.state_dict().items()}
    with_person = sampled(*applied(nodes, pair, drawn(0)))
    after = sampled(pair.model, *plain)
    assert torch.equal(before, after)
    assert not torch.equal(before, with_person)
    assert all(torch.equal(weights[key], value) for key, value in pair.model.model.diffusion_model.state_dict().items())
    assert not pair.model.wrappers
    assert "patches_replace" not in pair.model.model_options["transformer_options"]


@pytest.mark.parametrize("scheduler", ["karras", "normal", "simple"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde"])
def test_the_merge_step_is_a_step_with_every_scheduler(nodes, pair, drawn, scheduler, sampler):
    import comfy.samplers

    model, positive, negative = applied(nodes, pair, drawn(0), merge=0.4)
    watched, seen = contexts(model)
    sampled(watched, positive, negative, scheduler=scheduler, sampler=sampler)
    known = positive[0][1]["consistentid"].embeddings.conditioning
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, STEPS)
    first = float(sigmas[3])  # steps 0, 1 and 2 know no region
    assert {level > first * 1.001 for level, _ in seen} == {True, False}
    for level, text in seen:
        expected = known.text_only_embeds if level > first * 1.001 else known.prompt_embeds
        assert torch.equal(text, expected[0])


def test_a_time_range_of_the_user_stays(nodes, pair, drawn):
    import node_helpers

    model, positive, negative = applied(nodes, pair, drawn(0), merge=0.2)
    late = node_helpers.conditioning_set_values(positive, {"start_percent": 0.5, "end_percent": 1.0})
    other = node_helpers.conditioning_set_values(encoded(pair, "a tree"), {"start_percent": 0.0, "end_percent": 0.4999})
    watched, seen = contexts(model)
    sampled(watched, other + late, negative)
    tree = other[0][0][0]
    assert [torch.equal(text, tree) for _, text in seen] == [
        True,
        True,
        False,
        False,
        False,
    ]  # at 801, 601, 401, 201 and 1 of 1000
    assert torch.equal(seen[-1][1], positive[0][0][0])


def test_prompts_are_read_as_comfyui_reads_them(nodes, pair, drawn):
    text = "blurry, (ugly:1.3), a [b] \\(c\\)"
    _, _, negative = applied(nodes, pair, drawn(0), negative_prompt=text)
    assert torch.equal(negative[0][0], encoded(pair, text)[0][0])
    plain, strong = (
        applied(nodes, pair, drawn(0), prompt=f"portrait in a {word}")[1][0][0] for word in ("garden", "(garden:1.4)")
    )
    assert not torch.equal(plain, strong)


def test_clip_set_last_layer_counts(nodes, pair, drawn):
    shorter = pair.clip.clone()
    shorter.clip_layer(-2)
    _, _, negative = applied(nodes, pair, drawn(0), clip=shorter, negative_prompt="blurry")
    expected = shorter.encode_from_tokens_scheduled(shorter.tokenize("blurry"))[0][0]
    assert torch.equal(negative[0][0], expected)
    assert not torch.equal(expected, encoded(pair, "blurry")[0][0])


def test_a_plain_negative_and_an_unchanged_text_go_together(nodes, pair, drawn):
    model, positive, _ = applied(nodes, pair, drawn(0))
    assert torch.isfinite(sampled(model, positive, encoded(pair, "blurry"))).all()


def test_identity_scale_0_is_the_text_alone(nodes, pair, drawn):
    _, positive, negative = applied(nodes, pair, drawn(0), merge=0.0)
    model = applied(nodes, pair, drawn(0), merge=0.0, identity_scale=0.0)[0]
    assert torch.equal(sampled(model, positive, negative), sampled(pair.model, positive, negative))


def test_two_people_stand_in_two_places(nodes, pair, drawn):
    import node_helpers

    model, left, negative = applied(nodes, pair, drawn(0))
    again, right, _ = applied(nodes, pair, drawn(1), model=model)
    assert again is model
    both = [
        *node_helpers.conditioning_set_values(left, {"area": (8, 4, 0, 0), "strength": 1.0}),
        *node_helpers.conditioning_set_values(right, {"area": (8, 4, 0, 4), "strength": 1.0}),
    ]
    alone = [*both[:1], *node_helpers.conditioning_set_values(left, {"area": (8, 4, 0, 4), "strength": 1.0})]
    found, one = sampled(model, both, negative), sampled(model, alone, negative)
    change = (found - one).abs().mean((0, 1, 2))
    assert change[4:].min() > 0
    assert change[4:].mean() > 3 * change[:4].mean()


def test_loras_and_other_patches_of_comfyui_stay(nodes, pair, drawn):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    delta = torch.randn(pair.model.model.state_dict()[key].shape, generator=torch.Generator().manual_seed(1))

    def with_lora(model: Any) -> Any:
        changed = model.clone()
        changed.add_patches({key: (delta,)})
        return changed

    person, positive, negative = applied(nodes, pair, drawn(0))
    before = sampled(applied(nodes, pair, drawn(0), model=with_lora(pair.model))[0], positive, negative)
    after = sampled(with_lora(person), positive, negative)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after, sampled(person, positive, negative), rtol=1e-2, atol=1e-2)


def test_another_replacement_of_attention_is_called(nodes, pair, drawn):
    from comfy.ldm.modules.attention import optimized_attention

    called = []

    def replacement(query: Any, key: Any, value: Any, options: dict[str, Any]) -> Any:
        called.append(options["block"])
        return optimized_attention(query, key, value, options["n_heads"])

    other = pair.model.clone()
    other.set_model_attn2_replace(replacement, "input", 3)
    person, positive, negative = applied(nodes, pair, drawn(0))
    joined, _, _ = applied(nodes, pair, drawn(0), model=other)
    torch.testing.assert_close(
        sampled(joined, positive, negative), sampled(person, positive, negative), rtol=1e-4, atol=1e-4
    )
    assert set(called) == {("input", 3)}


def test_refusals_of_apply(nodes, pair, drawn, twins):
    face = drawn(0)
    model, positive, negative = applied(nodes, pair, face)
    with pytest.raises(InvalidSettings, match="already carries"):
        applied(nodes, pair, face, model=model, identity_scale=0.5)
    with pytest.raises(InvalidSettings, match="reads texts of width 128, the adapter writes 64"):
        applied(nodes, pair, face, model=twins("sdxl").model)
    with pytest.raises(InvalidSettings, match="it writes texts of width 128, the adapter reads 64"):
        applied(nodes, pair, face, clip=twins("sdxl").clip)
    with pytest.raises(InvalidPrompt, match="has brackets"):
        applied(nodes, pair, face, caption="a (round:1.2) face")
    with pytest.raises(PromptRefused):
        applied(nodes, pair, face, prompt="a naked child")
    longer = [[torch.cat([positive[0][0]] * 2, 1), positive[0][1]]]
    with pytest.raises(InvalidSettings, match="another node has changed the text"):
        sampled(model, longer, negative)


def test_refusals_of_the_other_nodes(nodes, pair, drawn):
    (mixed,) = nodes.MixFaces().mix(drawn(0), 0.5, "average", second_person=drawn(1))
    with pytest.raises(InvalidSettings, match="cannot be mixed again"):
        nodes.MixFaces().mix(mixed, 0.5, "average")
    with pytest.raises(InvalidSettings, match="must end after it starts"):
        nodes.RegionWeight().weigh("eyes", 1.0, 0.8, 0.3, "")
    with pytest.raises(InvalidSettings, match="unknown region 'identity'"):
        nodes.RegionWeight().weigh("identity", 1.0, -1.0, 1.0, "tired")
    with pytest.raises(InvalidSettings, match="2 images were given"):
        nodes.AnalyseFace().analyse(pair.loaded, torch.zeros(2, 8, 8, 3), "largest", 0)


def test_the_facial_prompt_shows_every_region(nodes, pair, drawn):
    shown, text = nodes.FacialPromptText().show(pair.loaded, pair.clip, drawn(0), "portrait")
    words = "portrait, The person has one face {}, two ears {}, two eyes {}, one nose {}, and one mouth {}"
    assert shown == words.format("[face]", "[ears]", "[eyes]", "[nose]", "[mouth]")
    assert text == words.replace(" {}", "")


def test_an_adapter_is_read_from_the_models_folder_and_a_face_found(nodes, pair, sample_photos, tmp_path):
    import folder_paths
    import numpy as np

    folder = nodes.LoadConsistentID.load.__globals__["FOLDER"]
    folder_paths.add_model_folder_path(folder, str(tmp_path))
    pair.loaded.adapter.save_pretrained(tmp_path / "mine")
    (tmp_path / "face_parsing.pth").touch()
    folder_paths.filename_list_cache.clear()
    names = nodes.LoadConsistentID.INPUT_TYPES()["required"]["adapter"][0]
    assert names == ["mine/adapter.safetensors", "embedded"]
    (loaded,) = nodes.LoadConsistentID().load(names[0])
    assert loaded.adapter.config == pair.loaded.adapter.config
    photo = torch.from_numpy(np.asarray(Image.open(next(iter(sample_photos.values())))) / np.float32(255))[None]
    face, preview, caption = nodes.AnalyseFace().analyse(loaded, photo, "as trained", 0)
    assert preview.shape == photo.shape
    assert set(face.region_masks) >= {"face", "eyes", "nose", "mouth"}
    assert "eyes" in caption
    with pytest.raises(NoFaceFound):
        nodes.AnalyseFace().analyse(loaded, torch.zeros(1, 64, 64, 3), "largest", 0)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_layers_of_the_whole_models_are_numbered_as_in_the_release(nodes, base):
    """By shapes alone, on the meta device."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.model_detection import detect_unet_config
    from comfy_twins import ldm
    from consistentid_nodes.unet import _layers

    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(LAYOUTS[base]["unet"])
    config = detect_unet_config({ldm.unet_key(key, theirs): value for key, value in theirs.state_dict().items()}, "")
    heads = {"num_heads": 8} if base == "sd15" else {"num_head_channels": 64}
    ours = UNetModel(**config, **heads, device="meta", operations=comfy.ops.disable_weight_init)
    model = SimpleNamespace(model_config=SimpleNamespace(unet_config=config), diffusion_model=ours)
    layers = _layers(model, AdapterConfig.preset(base))
    assert layer_shapes(layers, 128) == official_ip_adapter_shapes(base)
    assert [f"{layer.name}.to_q.weight" for layer in layers] == [
        ldm.unet_key(f"{layer.name}.to_q.weight", theirs) for layer in attention_layers(theirs)
    ]


def test_every_input_says_what_it_is(nodes):
    for name, node in nodes.NODE_CLASS_MAPPINGS.items():
        inputs = node.INPUT_TYPES()
        for given in (*inputs["required"].values(), *inputs.get("optional", {}).values()):
            assert given[1]["tooltip"], name
        assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert node.CATEGORY == "ConsistentID"
        assert name in nodes.NODE_DISPLAY_NAME_MAPPINGS
