"""A conditioning that changes from step to step: what its parts read is decided when the sampler's steps are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comfy.conds import CONDRegular
from jaxtyping import Float
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.generation.embeddings import Embeddings, pipeline_inputs
from consistentid.identity.config import AdapterConfig
from consistentid.identity.control import Control, phases

READING, TOKENS = "consistentid", "consistentid_tokens"
_ABOVE = 1 + 1e-4  # a phase begins this little above the noise level of its first step


@dataclass(frozen=True, eq=False)
class Reading:
    """One CONDITIONING of ours, as it is kept in ComfyUI's dictionary.

    Attributes:
        embeddings: of the face and both prompts.
        control: how strongly the photo's parts act, and when.
        config: says what share of the steps runs without regions.
        guidance: whether it is that of the negative prompt.
        text: the tensor that ComfyUI sees, by which a change by another node is noticed.
    """

    embeddings: Embeddings
    control: Control
    config: AdapterConfig
    guidance: bool
    text: Float[Tensor, "1 l d"]

    def conditioning(self) -> list[list[Any]]:
        """What goes through a CONDITIONING wire: after the merge step, until a patched MODEL knows better."""
        known = self.embeddings.conditioning
        pooled = known.negative_pooled if self.guidance else known.pooled
        options = {} if pooled is None else {"pooled_output": pooled}
        return [[self.text, {**options, READING: self}]]

    def by_step(self, steps: int) -> dict[int, dict[str, Any]]:
        """What ComfyUI's dictionary holds from which step on, counted from 0."""
        strengths = phases([self.control], steps=steps, merge_step=self.config.merge_step(steps))
        inputs = pipeline_inputs(
            [self.embeddings], strengths, guidance=True, device=torch.device("cpu"), dtype=torch.float32
        )
        row = slice(0, 1) if self.guidance else slice(1, 2)
        found: dict[int, dict[str, Any]] = {}
        for first, phase in inputs.phases.items():
            pooled = phase.tensors.get("add_text_embeds")
            found[first] = {
                "cross_attn": phase.tensors["prompt_embeds"][row],
                **({} if pooled is None else {"pooled_output": pooled[row]}),
                "model_conds": {TOKENS: CONDRegular(phase.tokens[row])},
            }
        return found


def read_by_steps(
    executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Float[Tensor, " n"], *others: Any
) -> Tensor:
    """A wrapper of ComfyUI's `outer_sample`: put one conditioning for every phase in the place of each of ours.

    They have time ranges, as ConditioningSetTimestepRange gives them, that begin and end at the steps' noise levels.

    Raises:
        InvalidSettings: another node has changed the text.
    """
    guider = executor.class_obj
    sampling = guider.model_patcher.get_model_object("model_sampling")
    guider.conds = {
        name: [phase for cond in conds for phase in _phases(cond, sigmas, sampling=sampling)]
        for name, conds in guider.conds.items()
    }
    output: Tensor = executor(noise, latent_image, sampler, sigmas, *others)
    return output


def _phases(cond: dict[str, Any], sigmas: Float[Tensor, " n"], *, sampling: Any) -> Iterator[dict[str, Any]]:
    reading: Reading | None = cond.get(READING)
    if reading is None:
        yield cond
        return
    if cond["cross_attn"] is not reading.text:
        raise InvalidSettings(
            "another node has changed the text of a ConsistentID conditioning; join conditionings with Conditioning "
            "(Combine), and write all words into the prompt"
        )
    kept = dict(cond)
    # A range that the user set stays; ComfyUI would compute it over ours.
    begin = float(sampling.percent_to_sigma(kept.pop("start_percent", 0.0)))
    end = float(sampling.percent_to_sigma(kept.pop("end_percent", 1.0)))
    steps = max(len(sigmas) - 1, 1)
    found = reading.by_step(steps)
    starts = [*found, steps]
    for (first, values), following in zip(found.items(), starts[1:], strict=True):
        start = min(begin, float(sigmas[first]) * _ABOVE) if first > 0 else begin
        stop = max(end, float(sigmas[following]) * _ABOVE) if following < steps else end
        if start > stop:
            model_conds = {**kept["model_conds"], **values["model_conds"]}
            yield {**kept, **values, "model_conds": model_conds, "timestep_start": start, "timestep_end": stop}
