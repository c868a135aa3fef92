"""Compare this package with numbers of the released code (docs/parity.md).

Usage: python scripts/parity.py --fixtures FOLDER

FOLDER holds any subset of modules.npz, masks.npz, text_cases.json, e2e_sd15.npz and e2e_sdxl.npz; a cases.json may
describe further whole generations: {file: {case: {"prompt": …, "merge_step": …, "caption": …}}}. What is needed to
rebuild weights and inputs (fixtures.py, official_checkpoints.json, tokenizer/) is read from FOLDER or, where it is
missing there, from the copy in tests/fixtures/parity. Prints one line per case; exit code 1 when one failed.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from consistentid.errors import InvalidData
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import fill_contours
from consistentid.generation.generator import PortraitGenerator
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import AdapterConfig, Family
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.image_encoder import ClipImageEncoder
from consistentid.identity.layout import ip_adapter_shapes
from consistentid.prompting.facial_prompt import compose_facial_prompt
from consistentid.prompting.style import OFFICIAL_SD15
from consistentid.training.losses import localisation_loss

REBUILD = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "parity"
MODULE_TOLERANCE, GENERATION_TOLERANCE = 1e-5, 1e-3  # of the largest expected value
POSITIONS = torch.tensor([[5, 9, 14, 20, 31], [4, 8, 12, 0, 0]])
VALID = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
ROWS = [0, 4, 5, 8, 9, 12, 14, 20, 31, 76]  # of the 77 fused text embeddings that are stored
GENERATIONS = {
    "template": {"prompt": "A man, in a forest, adventuring, cinematic photo", "merge_step": 2},
    "early": {"prompt": "A woman wearing a santa hat", "merge_step": 0},
}
NEGATIVE = "monochrome, lowres, bad anatomy"
# The release's names of masks and regions.
MASKS = {
    "Face": 1, "Left_Eyebrow": 2, "Right_Eyebrow": 3, "Left_Eye": 4, "Right_Eye": 5, "Left_Ear": 7, "Right_Ear": 8,
    "Nose": 10, "Mouth_Inner_Contour": 11, "Upper_Lip": 12, "Lower_Lip": 13, "Neck": 14, "Hat": 17,
}  # fmt: skip
REGIONS = {
    "Face": "face", "Left_Eye": "eyes", "Right_Eye": "eyes", "Left_Ear": "ears", "Right_Ear": "ears", "Nose": "nose",
    "Upper_Lip": "mouth", "Lower_Lip": "mouth",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One comparison; `error` runs it and gives the largest difference as a share of the largest expected value."""

    name: str
    tolerance: float
    error: Callable[[], float]


@dataclass(frozen=True)
class Fixtures:
    """A folder of expected numbers, and the functions that rebuild weights and inputs."""

    folder: Path

    @cached_property
    def rebuild(self) -> ModuleType:
        """fixtures.py."""
        spec = importlib.util.spec_from_file_location("parity_fixtures", self.path("fixtures.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Keys and shapes of the released checkpoints."""
        found: dict[str, Any] = json.loads(self.path("official_checkpoints.json").read_text())
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """CLIP's."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self.path("tokenizer"))

    def numbers(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file; none when it is not there."""
        path = self.folder / name
        if not path.is_file():
            return {}
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def json(self, name: str, default: Any) -> Any:
        """A JSON file, or the default when it is not there."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.is_file() else default

    def tensor(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """An input."""
        return torch.from_numpy(self.rebuild.array(key, shape))

    def path(self, name: str) -> Path:
        """A file of the folder, or the repository's copy."""
        return self.folder / name if (self.folder / name).exists() else REBUILD / name


def cases(fixtures: Fixtures) -> Iterator[Case]:
    """Every comparison that the folder has numbers for."""
    kinds: dict[str, Callable[[Fixtures], Iterator[Case]]] = {
        "modules.npz": _module_cases,
        "masks.npz": _mask_cases,
        "text_cases.json": _text_cases,
        "e2e_sd15.npz": partial(_generation_cases, base="sd15"),
        "e2e_sdxl.npz": partial(_generation_cases, base="sdxl"),
    }
    for file, listed in kinds.items():
        try:
            yield from list(listed(fixtures))
        except Exception as problem:  # noqa: BLE001  a file that cannot be read is one failed case
            yield Case(file, 0, partial(_unreadable, file, problem))


def _unreadable(file: str, problem: Exception) -> float:
    raise InvalidData(f"{file} cannot be read ({type(problem).__name__}: {problem})") from problem


def _module_cases(fixtures: Fixtures) -> Iterator[Case]:
    for name, expected in fixtures.numbers("modules.npz").items():
        yield Case(name, MODULE_TOLERANCE, partial(_module, fixtures, name, expected))


def _mask_cases(fixtures: Fixtures) -> Iterator[Case]:
    masks = fixtures.numbers("masks.npz")
    label_map = masks.pop("parsing", None)
    for name, expected in masks.items():
        yield Case(f"masks.{name}", 0, partial(_mask, name, label_map, expected))


def _text_cases(fixtures: Fixtures) -> Iterator[Case]:
    for name, text in _named(fixtures.json("text_cases.json", [])):
        yield Case(f"text.{name}", 0, partial(_text, fixtures, text))


def _generation_cases(fixtures: Fixtures, base: Family) -> Iterator[Case]:
    described, file = fixtures.json("cases.json", {}), f"e2e_{base}"
    more = described.get(f"{file}.npz", described.get(file, {}))
    for name, expected in fixtures.numbers(f"{file}.npz").items():
        asked = {**GENERATIONS, **more}.get(name)
        yield Case(f"{file}.{name}", GENERATION_TOLERANCE, partial(_generation, fixtures, base, asked, expected))


def _named(texts: list[dict[str, Any]] | dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    pairs = texts.items() if isinstance(texts, dict) else enumerate(texts)
    return [(str(name), text) for name, text in pairs]


def _error(found: Tensor | np.ndarray, expected: np.ndarray) -> float:
    values = np.asarray(found, np.float64)
    if values.shape != expected.shape:
        raise InvalidData(f"the shape is {values.shape} instead of {expected.shape}")
    return float(np.abs(values - expected).max() / max(np.abs(expected).max(), 1e-12))


@torch.no_grad()
def _module(fixtures: Fixtures, name: str, expected: np.ndarray) -> float:
    kind, _, rest = name.partition(".")
    if kind == "image_proj":
        base, _, variant = rest.partition(".")
        return _error(_identity_tokens(fixtures, _family(base), shortcut=variant == "shortcut"), expected)
    if kind == "facial_encoder":
        return _error(_fused_text(fixtures, _family(rest))[:, ROWS], expected)
    if kind == "attn":
        return _error(_attention(fixtures, rest), expected)
    if kind == "loss":
        return _error(_localisation(fixtures), expected)
    raise InvalidData(f"no comparison is known for {name}; give one of image_proj, facial_encoder, attn, loss")


def _family(name: str) -> Family:
    released: dict[str, Family] = {"sd15": "sd15", "sdxl": "sdxl"}
    if name not in released:
        raise InvalidData(f"no checkpoint of {name} was released; give one of {', '.join(released)}")
    return released[name]


def _identity_tokens(fixtures: Fixtures, base: Family, *, shortcut: bool) -> Tensor:
    from diffusers import UNet2DConditionModel

    weights = fixtures.rebuild.checkpoint_part("image_proj.", _image_proj(fixtures, base))
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=AdapterConfig.preset(base).text_dim)
    projector = unet._convert_ip_adapter_image_proj_to_diffusers(weights, low_cpu_mem_usage=False)
    projector.shortcut = shortcut
    projector.clip_embeds = fixtures.tensor("in.clip", (2, 257, 1280))[:, None]
    tokens: Tensor = projector(F.normalize(fixtures.tensor("in.id", (2, 512)), dim=1))
    return tokens


def _image_proj(fixtures: Fixtures, base: Family) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = fixtures.manifest[base]["image_proj"]
    return shapes


def _facial_encoder(fixtures: Fixtures, base: Family) -> FacialEncoder:
    with torch.device("meta"):
        encoder = FacialEncoder.from_adapter_config(AdapterConfig.preset(base))
    weights = fixtures.rebuild.checkpoint_part("facial_encoder.", fixtures.manifest[base]["FacialEncoder"])
    encoder.load_state_dict(weights, strict=True, assign=True)
    return encoder.eval()


def _fused_text(fixtures: Fixtures, base: Family) -> Tensor:
    encoder = _facial_encoder(fixtures, base)
    text = fixtures.tensor("in.prompt", (2, 77, encoder.config.text_dim))
    fused: Tensor = encoder(text, fixtures.tensor("in.regions", (2, 5, 257, 1280)), POSITIONS, VALID)
    return fused


def _attention(fixtures: Fixtures, which: str) -> Tensor:
    """`self`, or `cross.scaleX`: the attention layers of a U-Net with an attached adapter."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(320,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("UpBlock2D",), mid_block_type=None, cross_attention_dim=768, attention_head_dim=8,
    ).eval()  # fmt: skip
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    for name in ("attn1", "attn2"):
        layer = getattr(block, name)
        shapes = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
        layer.load_state_dict({key: fixtures.rebuild.weight(f"{name}.{key}", shape) for key, shape in shapes.items()})
    config = AdapterConfig.preset("sd15", projector_width=64, facial_width=64, facial_depth=1)
    adapter = IdentityAdapter.new(config, unet)
    adapter.load_state(adapter.state() | {
        f"ip_adapter.{key}": fixtures.rebuild.weight(f"attn{int(key[0]) + 1}.processor.{key[2:]}", shape)
        for key, shape in ip_adapter_shapes(unet, config.lora_rank).items()
    })  # fmt: skip
    adapter.attach(unet)
    hidden = fixtures.tensor("in.hidden", (2, 64, 320))
    if which == "self":
        output: Tensor = block.attn1(hidden)
        return output
    # Not adapter.set_scale: at 0 that switches the LoRAs off too, on which the release's scale has no effect.
    block.attn2.processor.scale = [float(which.removeprefix("cross.scale"))]
    context = fixtures.tensor("in.context", (2, 81, 768))
    return block.attn2(hidden, encoder_hidden_states=(context[:, :-4], [context[:, -4:]]))


def _localisation(fixtures: Fixtures) -> Tensor:
    maps = torch.softmax(2 * fixtures.tensor("in.scores", (16, 256, 77)), dim=-1).view(2, 8, 256, 77)
    masks = (fixtures.tensor("in.seg", (2, 5, 64, 64)) > 0.6).float()
    masks = F.interpolate(masks, size=(16, 16), mode="bilinear", antialias=True).flatten(2)
    return localisation_loss(maps.gather(3, POSITIONS[:, None, None].expand(2, 8, 256, 5)), masks, VALID).mean()


def _mask(name: str, label_map: np.ndarray | None, expected: np.ndarray) -> float:
    if label_map is None:
        raise InvalidData("masks.npz lacks `parsing`, the label map that the masks are made from")
    if name in ("Background", "WithoutBackground"):
        found = (label_map == 0) == (name == "Background")
    elif name in MASKS:
        found = fill_contours(label_map == MASKS[name])
    else:
        raise InvalidData(f"no mask is known as {name}; give one of {', '.join(MASKS)}")
    return float((found != (expected > 0)).mean())


def _text(fixtures: Fixtures, case: dict[str, Any]) -> float:
    """The share of the outputs that differ."""
    found = compose_facial_prompt(
        case["prompt"],
        caption=case["caption"],
        regions=[REGIONS[name] for name in case["selected"]],
        tokenizers=[fixtures.tokenizer],
        style=OFFICIAL_SD15,
    )
    pairs = [
        (found.text, case["full_prompt"]),
        (found.text_only, case["text_only_prompt"]),
        (found.ids[0].tolist(), case["input_ids"]),
        (list(found.positions), case["facial_token_index"][: sum(case["facial_token_valid"])]),
        (set(found.marked_regions), {REGIONS[name] for name in case["aligned_regions"]}),
    ]
    return sum(ours != theirs for ours, theirs in pairs) / len(pairs)


def _generation(fixtures: Fixtures, base: Family, asked: dict[str, Any] | None, expected: np.ndarray) -> float:
    """The call that docs/parity.md shows."""
    if asked is None:
        raise InvalidData("no prompt is known for this generation; describe it in cases.json")
    generator = tiny_generator(fixtures, base)
    photo, label_map, identity = fixtures.rebuild.face_inputs(512)
    if base == "sdxl":
        label_map = fixtures.rebuild.face_inputs(1280)[1]
    portrait = generator.generate(
        FaceAnalysis.from_parts(photo, label_map, identity),
        asked["prompt"],
        negative_prompt=NEGATIVE,
        caption=asked.get("caption"),  # None: the template that the adapter was trained with
        merge_step=asked["merge_step"],
        steps=6,
        guidance=5.0,
        scheduler="ddim",
        size=(128, 128),
        latents=fixtures.tensor("latents", (1, 4, 16, 16)),
        output_type="latent",
    )[0]
    assert portrait.latents is not None
    return _error(portrait.latents[None], expected)


def tiny_generator(fixtures: Fixtures, base: Family) -> PortraitGenerator:
    """A generator in official mode on a tiny base model, with weights of the released layout."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    parts = fixtures.rebuild.tiny_parts(str(fixtures.path("tokenizer")), sdxl=base == "sdxl")
    image_encoder = ClipImageEncoder(parts.pop("image_encoder"))
    config = AdapterConfig.preset(base)
    adapter = IdentityAdapter(
        config,
        facial_encoder=_facial_encoder(fixtures, base),
        image_proj=fixtures.rebuild.checkpoint_part("image_proj.", _image_proj(fixtures, base)),
        ip_adapter=fixtures.rebuild.checkpoint_part(
            "adapter_modules.", ip_adapter_shapes(parts["unet"], config.lora_rank)
        ),
    )
    if base == "sdxl":
        pipeline: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    adapter.attach(pipeline, merge_loras=True)
    conditioner = Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)
    return PortraitGenerator(pipeline, adapter, analyzer=None, conditioner=conditioner)


def main(arguments: list[str] | None = None) -> int:
    """Print one line per case and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path, required=True, help="folder of expected numbers")
    folder = parser.parse_args(arguments).fixtures
    found = list(cases(Fixtures(folder)))
    if not found:
        print(f"no fixtures in {folder}; give a folder with modules.npz, masks.npz, … in it", file=sys.stderr)
        print("0 passed, 0 failed")
        return 2
    failed = 0
    for case in found:
        try:
            error = case.error()
            passed, said = error <= case.tolerance, f"{error:.2e}"
        except Exception as problem:  # noqa: BLE001  one bad case is one failed case, not the end of the run
            passed, said = False, f"{type(problem).__name__}: {problem}"
        failed += not passed
        print(f"{'ok  ' if passed else 'FAIL'} {case.name}: {said} (at most {case.tolerance:g})", flush=True)
    print(f"{len(found) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
