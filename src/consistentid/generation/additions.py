"""What the community trains for a base model: LoRAs and textual inversions, put into it before the adapter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.generation.downloads import announce
from consistentid.generation.sources import hub_path
from consistentid.identity.checkpoint import read_tensors
from consistentid.identity.layout import outputs_and_inputs


def fuse_loras(pipeline: Any, loras: Sequence[str], *, offline: bool = False) -> None:
    """Add LoRAs to the weights of a base model, where they cost nothing more; the pipeline is changed for good.

    Args:
        pipeline: without an attached adapter.
        loras: files (diffusers or kohya layout) or `owner/name/file` on the hub, each with an optional `:weight`.
        offline: take hub files from the cache only.

    Raises:
        WeightsNotFound: a file is missing, damaged, no LoRA, or of another base model; nothing was changed then.
    """
    read = [(_lora_state(pipeline, name, offline=offline), weight) for name, weight in map(name_and_weight, loras)]
    names = [f"addition_{index}" for index in range(len(read))]
    for name, (state, _) in zip(names, read, strict=True):
        pipeline.load_lora_weights(state, adapter_name=name)
    if names:
        pipeline.set_adapters(names, adapter_weights=[weight for _, weight in read])
        pipeline.fuse_lora(adapter_names=names)
        pipeline.unload_lora_weights()


def name_and_weight(text: str) -> tuple[str, float]:
    """`style.safetensors:0.8` -> its name and weight; 1 without a weight."""
    name, _, weight = text.rpartition(":")
    try:
        return (name, float(weight)) if name else (text, 1.0)
    except ValueError:
        return text, 1.0


def load_textual_inversions(pipeline: Any, inversions: Sequence[str], *, offline: bool = False) -> list[str]:
    """Teach a pipeline's tokenizers and text encoders new words.

    Args:
        pipeline: of the base model that the words were trained for.
        inversions: files, or `owner/name/file` on the hub. A word is called as in its file, else like the file.
        offline: take hub files from the cache only.

    Returns:
        the words to write in prompts.

    Raises:
        WeightsNotFound: a file is missing, damaged, or of another base model.
        InvalidSettings: the tokenizer knows the word already.
    """
    return [_teach(pipeline, _found(each, "textual inversion", offline=offline)) for each in inversions]


def expanded(pipeline: Any, text: str) -> str:
    """A prompt with every word of several vectors written out, as the tokenizer needs it."""
    convert = getattr(pipeline, "maybe_convert_prompt", None)
    return text if convert is None else str(convert(text, pipeline.tokenizer))


def _found(name: str, part: str, *, offline: bool) -> Path:
    announce(name, part, offline=offline)
    path = hub_path(name, part=part, offline=offline)
    if not path.is_file():
        raise WeightsNotFound(f"{name} does not exist; give the file of a {part}")
    return path


def _lora_state(pipeline: Any, name: str, *, offline: bool) -> dict[str, Tensor]:
    """The file's tensors, after their diffusers names and shapes were compared with the U-Net."""
    tensors = read_tensors(_found(name, "LoRA", offline=offline))
    try:
        converted, _ = pipeline.lora_state_dict(dict(tensors), unet_config=pipeline.unet.config)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise WeightsNotFound(f"{name} is no LoRA that can be read ({error})") from error
    layers = _lora_layers(converted)
    if not layers:
        raise WeightsNotFound(f"{name} is no LoRA of a U-Net; `consistentid weights verify` says what it is")
    wrong = [layer for layer, shape in layers.items() if not _fits(pipeline.unet, layer, shape)]
    if wrong:
        raise WeightsNotFound(
            f"{name} is a LoRA of another base model: {len(wrong)} of its {len(layers)} layers do not fit this one's "
            f"U-Net, such as {wrong[0]}"
        )
    return tensors


def _lora_layers(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Numbers of outputs and inputs of every U-Net layer that a LoRA changes."""
    from diffusers.utils import convert_unet_state_dict_to_peft

    own = {key.removeprefix("unet."): value for key, value in state.items() if key.startswith("unet.")}
    if own and not any(".lora_A." in key for key in own):
        own = convert_unet_state_dict_to_peft(own)
    downs = {key.removesuffix(".lora_A.weight"): value for key, value in own.items() if key.endswith(".lora_A.weight")}
    ups = {layer: own.get(f"{layer}.lora_B.weight") for layer in downs}
    return {layer: (0 if (up := ups[layer]) is None else up.shape[0], down.shape[1]) for layer, down in downs.items()}


def _fits(unet: Any, layer: str, shape: tuple[int, int]) -> bool:
    try:
        return outputs_and_inputs(unet.get_submodule(layer)) == shape
    except AttributeError:
        return False


def _teach(pipeline: Any, path: Path) -> str:
    tensors = read_tensors(path)
    word, vectors = _word(tensors, path)
    names = [""] if getattr(pipeline, "text_encoder_2", None) is None else ["", "_2"]
    encoders = [getattr(pipeline, f"text_encoder{name}") for name in names]
    widths = [encoder.get_input_embeddings().weight.shape[-1] for encoder in encoders]
    if [vector.shape[-1] for vector in vectors] != widths:
        found = ", ".join(str(vector.shape[-1]) for vector in vectors)
        raise WeightsNotFound(
            f"{path} is a textual inversion of another base model: its vectors have {found} numbers, this one's text "
            f"encoders read {', '.join(map(str, widths))}"
        )
    for name, encoder, vector in zip(names, encoders, vectors, strict=True):
        tokenizer = getattr(pipeline, f"tokenizer{name}")
        if word in tokenizer.get_vocab():
            raise InvalidSettings(f"the tokenizer knows the word {word!r} already; rename {path.name}")
        pipeline.load_textual_inversion({word: vector}, token=word, tokenizer=tokenizer, text_encoder=encoder)
    return word


def _word(tensors: Mapping[str, Tensor], path: Path) -> tuple[str, list[Tensor]]:
    """The word and its vectors for each text encoder, from the layouts in use."""
    if {"clip_l", "clip_g"} <= tensors.keys():
        return path.stem, [tensors["clip_l"], tensors["clip_g"]]
    if "emb_params" in tensors:
        return path.stem, [tensors["emb_params"]]
    old = [value for key, value in tensors.items() if key.startswith("string_to_param.")]
    if old:
        return path.stem, old[:1]
    if len(tensors) == 1:
        return next((word, [vector]) for word, vector in tensors.items())
    raise WeightsNotFound(f"{path} is no textual inversion; it holds {len(tensors)} tensors")
