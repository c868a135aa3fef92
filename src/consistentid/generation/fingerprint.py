"""Hashes that tell whether an analysis or the weights are the same as when a portrait was made."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from consistentid.images import arrays_sha256


def analysis_sha256(analysis: Any) -> str:
    """Of everything a face analysis found.

    Args:
        analysis: a `faces.analysis.FaceAnalysis`.
    """
    own = analysis.parser_label_map  # official masks are cut from it, so the same `label_map` is not enough
    description = "\0" if analysis.description is None else analysis.description  # no text is another than an empty one
    return arrays_sha256(
        np.asarray(analysis.box, np.float64),
        np.asarray([] if analysis.landmarks is None else analysis.landmarks, np.float32),
        np.asarray(analysis.identity_embedding, np.float32),
        np.asarray(analysis.label_map, np.uint8),
        np.frombuffer(description.encode(), np.uint8),
        *([] if own is None else [np.asarray(own, np.uint8)]),
    )


def model_sha256(pipeline: Any, adapter: Any) -> str:
    """Of everything with weights that takes part after the analysis: base model and attached adapter.

    Args:
        pipeline: a stock pipeline.
        adapter: the `identity.adapter.IdentityAdapter` attached to it.
    """
    adapter.set_scale(0.0)  # LoRAs that are merged into the base weights are taken out of them
    modules = {name: getattr(pipeline, name, None) for name in ("unet", "vae", "text_encoder", "text_encoder_2")}
    present = {name: module for name, module in modules.items() if module is not None}
    configs = {name: _meaning(module.config) for name, module in {**present, "scheduler": pipeline.scheduler}.items()}
    configs["adapter"] = adapter.config.model_dump(mode="json")
    return weights_sha256({**present, "facial_encoder": adapter.facial_encoder}, configs)


def dtype_name(module: Any) -> str:
    """Type of a network's weights, such as `bfloat16`."""
    return str(module.dtype).removeprefix("torch.")


def _meaning(config: Any) -> dict[str, object]:
    """A configuration without what says only where and by which version it was saved."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {key: value for key, value in values.items() if not key.startswith("_") and key != "transformers_version"}


def weights_sha256(modules: Mapping[str, nn.Module], configs: Mapping[str, object]) -> str:
    """Of every parameter and buffer, with its name and type, and of the configurations that say how they are used."""
    digest = hashlib.sha256(json.dumps(configs, sort_keys=True, default=str).encode())
    for name, module in sorted(modules.items()):
        for key, value in sorted(module.state_dict().items()):
            if isinstance(value, torch.Tensor):
                digest.update(f"{name}.{key} {value.dtype} {tuple(value.shape)}\n".encode())
                raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(raw.numpy().data)
    return digest.hexdigest()
