"""Identity adapters are trained on tiny base models from drawn faces, and generate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from consistentid.dataset.record import FGIDRecord
from consistentid.errors import InvalidData, InvalidSettings, WeightsNotFound
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.generator import PortraitGenerator
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.training.adapter.config import AdapterTrainingConfig
from consistentid.training.adapter.trainer import AdapterTrainer
from consistentid.training.adapter.validation import attention_inside
from consistentid.training.conditions import Kept
from consistentid.training.prediction import predict
from consistentid.training.run import load_config, run
from consistentid.training.share import Share
from consistentid.training.step import attention_losses, draw_step, training_step

_DROPS = ("drop_all", "drop_text", "drop_identity", "drop_regions", "drop_region")
Settings = dict[str, Any]


def _trainer(settings: Settings) -> AdapterTrainer:
    return AdapterTrainer(AdapterTrainingConfig.model_validate(settings))


def _adapter(settings: Settings) -> dict[str, torch.Tensor]:
    return load_file(Path(settings["out"]) / "adapter" / "adapter.safetensors")


def test_a_trained_adapter_generates(settings: Settings, write: Any) -> None:
    settings["workers"] = 1
    settings["loop"] |= {"validate_every": 3, "ema_decay": 0.9}
    folder = run(load_config(write(settings)))
    fresh = IdentityAdapter.new(AdapterTrainingConfig.model_validate(settings).layout, _trainer(settings).base.unet)
    trained = _adapter(settings)
    for group in ("facial_encoder", "image_proj", "ip_adapter"):
        changed = [
            key for key, value in fresh.state().items() if key.startswith(group) and (value != trained[key]).any()
        ]
        assert changed, group
    generator = PortraitGenerator.from_pretrained(settings["base"], adapter=folder, cache=False)
    analysis = _trainer(settings).dataset[0].analysis()
    assert generator.generate(analysis, "a portrait photo", steps=2)[0].image.size == (64, 64)


def test_sdxl_is_trained_in_buckets(settings: Settings, sdxl: Path) -> None:
    settings |= {"base": str(sdxl), "photos": {"resolution": 192, "buckets": True}, "batch_size": 2}
    settings["adapter"] = settings["adapter"] | {
        "base": "sdxl",
        "text_dim": 128,
        "projector_width": 64,
        "shortcut": False,
    }
    settings["adapter"] |= {
        "identity_dim": 128,
        "image_dim": 448,
        "image_tokens": 64,
        "image_encoder": {"kind": "dlib"},
    }
    trainer = _trainer(settings)
    folder = trainer.run()
    shapes = {tuple(trainer.sampler.draw(Share(0, step)).target.shape[2:]) for step in range(6)}
    assert shapes == {(192, 192), (128, 256)}
    draft = trainer.sampler.draw(Share(0, 0))
    assert draft.ids_2 is not None
    height, width = draft.target.shape[2:]
    assert draft.place[:, 4:].tolist() == [[height, width]] * 2
    generator = PortraitGenerator.from_pretrained(settings["base"], adapter=folder, cache=False)
    portrait = generator.generate(trainer.dataset[0].analysis(), "a portrait photo", steps=2)[0]
    assert portrait.settings.regions_used


def test_training_and_generation_show_the_same(settings: Settings) -> None:
    settings["photos"] |= {"without_caption": 0, "other_photo": 0, "mirror": False, "jitter": False}
    trainer = _trainer(settings)
    index = int(trainer.rows[0][0])
    batch = trainer.encoders.completed(trainer.sampler.drafted([index], [np.random.default_rng(0)]))
    models, kept = trainer.models, _all_kept(1)
    conditioner = Conditioner(
        models.adapter,
        text_encoders=trainer.base.text_encoders,
        tokenizers=trainer.base.tokenizers,
        image_encoder=trainer.image_encoder,
    )
    record = trainer.dataset[index]
    told = conditioner.condition(record.analysis(), record.caption, caption=record.facial_caption)
    assert torch.equal(told.facial_prompt.ids[0], batch.ids[0])
    assert torch.allclose(told.image_features, batch.whole_features, atol=1e-5)
    assert torch.allclose(told.identity, batch.identity_embedding)
    noisy, steps = torch.randn(batch.latents.shape), torch.tensor([400])
    with torch.no_grad():
        models.adapter.set_image_features(told.image_features)
        image_embeds = {"image_embeds": [told.identity[:, None]]}
        expected = models.unet(noisy, steps, told.prompt_embeds, added_cond_kwargs=image_embeds).sample
        assert torch.allclose(predict(models, batch, kept.of(batch), noisy, steps), expected, atol=1e-5)


def test_only_the_named_parts_are_trained(settings: Settings) -> None:
    settings["train"] = ["facial_encoder", "kv"]
    fresh = _trainer(settings).models.adapter.state()
    before = {key: value.clone() for key, value in fresh.items()}
    _trainer(settings).run()
    after = _adapter(settings)
    changed = {key.split(".")[0] + ".lora" * ("lora" in key) for key in after if (after[key] != before[key]).any()}
    assert changed == {"facial_encoder", "ip_adapter"}


def test_eq_1_reaches_queries_and_keys_of_the_named_blocks(settings: Settings) -> None:
    settings |= {"localised_blocks": ["mid_block"], "step": settings["step"] | {"drop_regions": 0, "drop_region": 0}}
    trainer = _trainer(settings)
    recorder = trainer.models.recorder
    batch = trainer.encoders.completed(trainer.sampler.draw(Share(0, 0)))
    config = trainer.config.step
    draws = draw_step(tuple(batch.latents.shape), trainer.base.scheduler, Share(0, 0).generator(), config=config)
    losses = training_step(trainer.models, batch, draws, config=config)
    losses.localisation.backward()
    assert {name.split(".")[0] for name in recorder.layers} == {"mid_block"}
    layer = trainer.base.unet.get_submodule(recorder.layers[0])
    for projection in (layer.to_q, layer.to_k):
        assert projection.lora_B["consistentid"].weight.grad.abs().sum() > 0
    assert layer.to_v.lora_B["consistentid"].weight.grad is None


def test_half_precision_and_gradient_checkpointing(settings: Settings) -> None:
    settings |= {"memory": {"gradient_checkpointing": True}, "loop": settings["loop"] | {"mixed_precision": "bf16"}}
    settings |= {"train": ["facial_encoder", "projector", "kv"]}
    trainer = _trainer(settings)
    before = {key: value.clone() for key, value in trainer.models.adapter.state().items() if "lora" in key}
    trainer.run()
    assert trainer.base.unet.conv_in.weight.dtype == torch.bfloat16
    after = _adapter(settings)
    assert all(torch.equal(after[key], value) for key, value in before.items())  # not trained, not rounded
    assert all(torch.isfinite(value).all() for value in after.values())


def test_another_configuration_does_not_go_on(settings: Settings) -> None:
    _trainer(settings).run()
    _trainer(settings | {"loop": settings["loop"] | {"steps": 4}}).run()
    with pytest.raises(InvalidSettings, match=r"loop\.learning_rate: 0\.001, not 0\.002"):
        _trainer(settings | {"loop": settings["loop"] | {"learning_rate": 2e-3}}).run()


def test_a_damaged_photo_is_named_from_a_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FGIDRecord, "open_label_map", _broken)
    with pytest.raises(InvalidData, match=r"record 0{15}\w \(\d+\.png\) cannot be decoded"):
        _trainer(settings | {"workers": 1}).run()


def _broken(_: FGIDRecord) -> None:
    raise OSError("truncated")


def test_attention_inside_a_region_equals_brute_force(settings: Settings) -> None:
    settings["photos"] |= {"without_caption": 0}
    trainer = _trainer(settings | {"batch_size": 1})
    batch = trainer.encoders.completed(trainer.sampler.draw(Share(0, 0)))
    kept = _all_kept(len(batch)).of(batch)
    recorder = trainer.models.recorder
    with torch.no_grad():
        with recorder.recording():
            predict(trainer.models, batch, kept, batch.latents, torch.full((len(batch),), 10))
        found = attention_inside(recorder, batch, kept.regions)
        layers = []
        for maps in recorder.maps(batch.positions):
            side = round(maps.shape[2] ** 0.5)
            masks = torch.nn.functional.adaptive_avg_pool2d(batch.region_masks, side).flatten(2)
            shares = [
                (maps[b, h, :, n] * masks[b, n]).sum() / maps[b, h, :, n].sum()
                for b, n in torch.nonzero(kept.regions).tolist()
                for h in range(maps.shape[1])
            ]
            layers.append(torch.stack(shares).mean())
        assert torch.allclose(found, torch.stack(layers).mean(), atol=1e-6)
        assert -1 < float(attention_losses(recorder, batch, kept.regions)["localisation"]) < 1


def test_an_accumulated_batch_equals_a_whole_one(settings: Settings, tmp_path: Path) -> None:
    settings["step"] |= {"base_only": 0.3}
    whole = settings | {"batch_size": 4, "out": str(tmp_path / "whole")}
    parts = settings | {"batch_size": 2, "out": str(tmp_path / "parts"), "loop": settings["loop"] | {"accumulate": 2}}
    for one in (whole, parts):
        _trainer(one).run()
    first, second = _adapter(whole), _adapter(parts)
    assert max(float((first[key] - second[key]).abs().max()) for key in first) < 3e-4  # of steps of 1e-3


def test_what_was_computed_before_trains_alike(settings: Settings, tmp_path: Path) -> None:
    store = {"folder": str(tmp_path / "store"), "variants": 2}
    settings["loop"] |= {"mixed_precision": "bf16"}
    before = _trainer(settings | {"precompute": store})
    stored, opened = before.sampler.photos, before.photos
    target, reference = stored.target(3, 1), stored.reference(3, 1)
    latents = before.base.latents(opened.target(3, 1).content[None])[0]
    assert torch.allclose(target.content.float(), latents, atol=2e-3)
    assert torch.equal(target.place, opened.target(3, 1).place)
    cut = opened.reference(3, 1)
    features = before.encoders.features(cut.content[None], cut.present[None])[0]
    assert torch.allclose(reference.content.float(), features, atol=4e-3)
    assert torch.equal(reference.present, cut.present)
    before.run()
    files = sorted((tmp_path / "store").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in files]
    _ = _trainer(settings | {"precompute": store}).sampler
    assert [path.stat().st_mtime_ns for path in files] == times
    assert not list((tmp_path / "store").rglob(".*"))


@pytest.mark.parametrize("nested", [True, False])
def test_training_starts_from_faceid_plus_weights(settings: Settings, tmp_path: Path, nested: bool) -> None:
    state = _trainer(settings).models.adapter.state()
    public = {key: torch.randn_like(value) * 0.02 for key, value in state.items() if not key.startswith("facial")}
    path = tmp_path / ("faceid.bin" if nested else "faceid.safetensors")
    if nested:
        parts: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
        for key, value in public.items():
            name, _, rest = key.partition(".")
            parts[name][rest] = value
        torch.save(parts, path)
    else:
        save_file(public, path)
    adapter = _trainer(settings | {"start_from": str(path)}).models.adapter
    started = adapter.state()
    assert all(torch.equal(started[key], value) for key, value in public.items())
    assert torch.equal(
        started["facial_encoder.fuse_module.mlp1.fc1.weight"], state["facial_encoder.fuse_module.mlp1.fc1.weight"]
    )


def test_weights_of_another_layout_are_refused(settings: Settings, tmp_path: Path) -> None:
    save_file({"image_proj.norm.weight": torch.zeros(3), "ip_adapter.0.x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsNotFound, match="another layout"):
        _ = _trainer(settings | {"start_from": str(tmp_path / "a.safetensors")}).models


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"base": "nowhere/at-all", "offline": True}, WeightsNotFound, "no unet of a Stable Diffusion pipeline"),
        ({"dataset": "nowhere"}, InvalidData, "no finished dataset"),
        ({"localised_blocks": ["attic"]}, InvalidSettings, "name blocks such as mid_block"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    settings: Settings, changes: Settings, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        _trainer(settings | changes).run()
    assert not Path(settings["out"]).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "other"}, "kind must be embedded or adapter"),
        ({"adapter": {"base": "flux"}}, "adapter.base must be sd15, sdxl or embedded"),
        ({"step": dict.fromkeys(_DROPS, 0.1) | {"regions_weight": 1}}, "regions_weight are for kind: embedded"),
        (
            {"step": dict.fromkeys(_DROPS, 0.1) | {"omission_weight": 1, "omissions": 1}},
            "omission_weight, .* are for kind: embedded",
        ),
        ({"train": []}, "train names no part"),
        ({"photos": {"framing": "face"}}, "set buckets: false"),
        ({"speed": 3}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: Settings, write: Any, changes: Settings, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        load_config(write(settings | changes))


def _all_kept(count: int) -> Kept:
    yes = torch.ones(count, dtype=torch.bool)
    return Kept(yes, torch.ones(count, len(REGION_NAMES), dtype=torch.bool), yes, fused=True, scale=1.0)
