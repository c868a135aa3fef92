"""Embeddings of a photo and a prompt as plain tensors, for the cache on the disk, and back."""

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from consistentid.generation.embeddings import Embeddings
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.conditioning import Conditioning
from consistentid.identity.tensor_cache import TensorCache
from consistentid.prompting.facial_prompt import FacialPrompt

FORMAT = 3  # raise it when the conditioning is computed in another way: what is on the disks then counts no more
_ROWS = ("regions", "positions")
_TOKENS = ("identity_tokens", "negative_identity_tokens", "given_tokens")


def stored(cache: TensorCache, key: tuple[object, ...], compute: Callable[[], Embeddings]) -> Embeddings:
    """Embeddings from the cache's folder, else computed and kept there.

    Args:
        cache: without a folder, all are computed.
        key: what they depend on, at the end the `conditioning_state`; with None there nothing is kept.
        compute: makes them.
    """
    if cache.folder is None or key[-1] is None:
        return compute()
    return from_tensors(cache.get(("embeddings", *key), lambda: to_tensors(compute())))


def to_tensors(embeddings: Embeddings) -> dict[str, Tensor]:
    """Everything in one flat dict; texts as JSON in a tensor of bytes."""
    conditioning = embeddings.conditioning
    tensors = {name: getattr(embeddings, name) for name in _TOKENS} | _tensors_of(conditioning, "conditioning")
    texts = []
    for index, prompt in enumerate(conditioning.facial_prompts):
        tensors |= _tensors_of(prompt, f"prompt{index}")
        texts.append({key: value for key, value in vars(prompt).items() if not isinstance(value, Tensor)})
    rows = {name: getattr(conditioning, name) for name in _ROWS}
    record = {**rows, "prompts": texts, "givers": embeddings.givers}
    text = json.dumps(record).encode()
    return tensors | {"record": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def from_tensors(tensors: dict[str, Tensor]) -> Embeddings:
    """The inverse of `to_tensors`."""
    record = json.loads(tensors["record"].numpy().tobytes())
    prompts = tuple(
        FacialPrompt(**_with_tuples(values), **_named(tensors, f"prompt{index}"))
        for index, values in enumerate(record["prompts"])
    )
    rows: dict[str, Any] = {name: tuple(tuple(row) for row in record[name]) for name in _ROWS}
    conditioning = Conditioning(**_named(tensors, "conditioning"), facial_prompts=prompts, **rows)
    named = {name: tensors[name] for name in _TOKENS}
    return Embeddings(conditioning, givers=tuple(record["givers"]), **named)


def conditioning_state(conditioner: Conditioner) -> tuple[object, ...] | None:
    """All that embeddings depend on besides photo and prompt; None when the weights are not in memory."""
    weights = conditioner.weights_checksum()
    if weights is None:
        return None
    encoder = conditioner.adapter.facial_encoder
    tokenizers = [(type(one).__name__, len(one)) for one in conditioner.tokenizers]
    config = conditioner.adapter.config.model_dump_json()
    # The order of additions, and so the last bits, depends on device and threads.
    place = (str(encoder.device), str(encoder.dtype), torch.get_num_threads(), torch.__version__)
    return (FORMAT, weights, config, str(tokenizers), *place)


def _tensors_of(record: Any, prefix: str) -> dict[str, Tensor]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {f"{prefix}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == prefix}


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if value is not None
    }
