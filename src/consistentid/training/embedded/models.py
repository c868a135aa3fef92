"""The embedded model's untrained parts, all diffusers and transformers classes."""

import json
import tempfile
from pathlib import Path

from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 256
MAX_TOKENS = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"


def new_tokenizer(corpus: list[str], *, vocabulary: int = 1024) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learnt from the corpus; any text can still be encoded."""
    from tokenizers import Tokenizer, models, trainers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet = list(bytes_to_unicode().values())
    seed = [_START, _END, *alphabet, *(letter + "</w>" for letter in alphabet)]
    clip = _clip_tokenizer({token: index for index, token in enumerate(seed)}, [])
    learner = Tokenizer(models.BPE(unk_token=_END, end_of_word_suffix="</w>", fuse_unk=False))
    learner.normalizer, learner.pre_tokenizer = clip.backend_tokenizer.normalizer, clip.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys([*seed, *("".join(pair) for pair in merges)])
    return _clip_tokenizer({token: index for index, token in enumerate(tokens)}, merges)


def _clip_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
        return CLIPTokenizer(
            vocab=str(Path(folder, "vocab.json")),
            merges=str(Path(folder, "merges.txt")),
            model_max_length=MAX_TOKENS,
            **special,
        )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers: captions are short and regular."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=3 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    """16 x 16 latents; attention at 8 x 8 and 4 x 4 (`attention_head_dim` is the number of heads, about 60 wide).

    The narrow first level is where most of the time would go: (96, 192, 224) costs 0.85 G multiply-adds an image,
    this one 0.50.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 128, 224),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(1, 2, 4),
    )


def new_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR; clipping samples would destroy unit-variance latents."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )
