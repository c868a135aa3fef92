"""Captions by vLLM, which answers thousands of photos on a GPU at once."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.description import VisionLanguageDescriber


class VLLMDescriber(VisionLanguageDescriber):
    """The same questions, answered by vLLM's offline engine; its own environment variables say where it downloads."""

    name = "vllm"

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise InvalidSettings(
                f"vLLM cannot be imported ({error}); run `pip install 'consistentid[vllm]'`"
            ) from error
        sampling = SamplingParams(temperature=0, max_tokens=self.max_new_tokens)
        return LLM(model=self.source, dtype=self.dtype), sampling

    def answers(self, images: Sequence[Image.Image], question: str) -> list[str]:
        """See `VisionLanguageDescriber.answers`."""
        engine, sampling = self._parts
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image_pil", "image_pil": image}, {"type": "text", "text": question}],
                }
            ]
            for image in images
        ]
        found = engine.chat(conversations, sampling, use_tqdm=False)
        return [" ".join(each.outputs[0].text.split()) for each in found]
