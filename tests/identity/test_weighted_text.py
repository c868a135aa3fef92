"""Weighted and long prompts: what compel makes of the texts, and where the region tokens go."""

import pytest
import torch
from compel import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode

from consistentid.errors import InvalidPrompt
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import OFFICIAL_SD15, OFFICIAL_SDXL, Quirks

TENSORS = ("prompt_embeds", "text_only_embeds", "negative_embeds", "negative_text_only_embeds")
POOLED = ("pooled", "text_only_pooled", "negative_pooled")
LONG = "a portrait of a woman, " + ", ".join(f"in garden number {index}" for index in range(30))


@pytest.fixture
def conditioner(pipeline, adapter, image_encoder):
    return Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)


@pytest.fixture
def with_quirks(pipeline, config, unet, image_encoder):
    """A conditioner of another mode; a second text encoder makes it one of SDXL."""

    def make(quirks, *, second=None):
        encoders = [pipeline.text_encoder, *([] if second is None else [second])]
        width = 64 * len(encoders)
        changed = config.model_copy(update={"quirks": quirks, "text_dim": width})
        network = type(unet).from_config({**unet.config, "cross_attention_dim": width})
        return Conditioner(
            IdentityAdapter.new(changed, network, seed=1),
            text_encoders=encoders,
            tokenizers=[pipeline.tokenizer] * len(encoders),
            image_encoder=image_encoder,
        )

    return make


@pytest.fixture
def second_encoder(pipeline):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(6)
    text = {**pipeline.text_encoder.config.to_dict(), "projection_dim": 32}
    return CLIPTextModelWithProjection(CLIPTextConfig(**text)).eval()


def provider(conditioner, *, truncate=False, index=0, kind=ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED):
    return EmbeddingsProvider(
        conditioner.tokenizers[index], conditioner.text_encoders[index], truncate=truncate,
        returned_embeddings_type=kind, split_long_text_mode=SplitLongTextMode.SENTENCES,
    )  # fmt: skip


@torch.no_grad()
def by_compel(one, fragments, weights):
    return one.get_embeddings_for_weighted_prompt_fragments([fragments], [weights])


def words_at(prompt, tokenizer):
    words = tokenizer.convert_ids_to_tokens(prompt.ids[0, list(prompt.positions)].tolist())
    return tuple(word.removesuffix("</w>") for word in words)


def test_without_weights_nothing_changes(conditioner, analyses):
    arguments = (analyses, ["a man in a forest.", "a woman"])
    weighted, plain = (
        conditioner.condition(*arguments, negative_prompt="blurred", weighted=flag) for flag in (True, False)
    )
    for name in TENSORS:
        torch.testing.assert_close(getattr(weighted, name), getattr(plain, name), rtol=0, atol=1e-6)
    for one, other in zip(weighted.facial_prompts, plain.facial_prompts, strict=True):
        assert (one.text, one.positions, one.regions) == (other.text, other.positions, other.regions)
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.text_only_ids, other.text_only_ids)


def test_syntax_is_text_when_weights_are_off(conditioner, analyses):
    given = conditioner.condition(analyses[0], "a (smiling)1.3 woman")
    assert given.facial_prompt.text_only.startswith("a (smiling)1.3 woman, ")


def test_weights_are_those_of_compel(conditioner, analyses):
    given = conditioner.condition(
        analyses[0], "a (smiling)1.4 (old)0.5 woman.", negative_prompt="(blurred)1.2, dark", weighted=True
    )
    text = given.facial_prompt.text_only
    assert text.startswith("a smiling old woman, ")
    fragments = ["a", "smiling", "old", text.removeprefix("a smiling old ")]
    expected = by_compel(provider(conditioner), fragments, [1, 1.4, 0.5, 1])
    torch.testing.assert_close(given.text_only_embeds, expected, rtol=0, atol=1e-6)
    negative = by_compel(provider(conditioner), ["blurred", ", dark"], [1.2, 1])
    torch.testing.assert_close(given.negative_embeds, negative, rtol=0, atol=1e-6)
    plain = conditioner.condition(analyses[0], "a smiling old woman")
    assert not torch.allclose(given.text_only_embeds, plain.text_only_embeds, atol=1e-3)


def test_a_larger_weight_changes_only_its_word(conditioner, analyses):
    given, plain = (
        conditioner.condition(analyses[0], prompt, weighted=True)
        for prompt in ("a (smiling)1.4 woman", "a smiling woman")
    )
    changed = (given.text_only_embeds != plain.text_only_embeds).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [2]  # after the start token and "a"
    with_regions = (given.prompt_embeds != plain.prompt_embeds).any(-1)[0].nonzero().flatten().tolist()
    assert with_regions == [2]


def test_region_tokens_are_at_the_marked_words(conditioner, analyses):
    given = conditioner.condition(analyses, "(a wow!)1.3", weighted=True)
    for row, prompt in enumerate(given.facial_prompts):
        assert words_at(prompt, conditioner.tokenizers[0]) == ("face", "ears", "eyes", "nose", "mouth")
        assert prompt.regions == ("face", "ears", "eyes", "nose", "mouth")
        changed = (given.prompt_embeds[row] != given.text_only_embeds[row]).any(-1).nonzero().flatten().tolist()
        where = dict(zip(prompt.regions, prompt.positions, strict=True))
        assert changed == sorted(where[name] for name in given.regions[row])


def test_a_long_prompt_is_not_cut(conditioner, analyses):
    ends = (LONG, f"{LONG}, blue sky")
    given, other = (conditioner.condition(analyses[0], prompt, weighted=True) for prompt in ends)
    cut, other_cut = (conditioner.condition(analyses[0], prompt) for prompt in ends)
    assert torch.equal(cut.text_only_embeds, other_cut.text_only_embeds)
    assert not torch.equal(given.text_only_embeds, other.text_only_embeds)
    assert cut.facial_prompt.regions == ()
    length = given.prompt_embeds.shape[1]
    assert length > 77
    assert length % 77 == 0
    assert {getattr(given, name).shape[1] for name in TENSORS} == {length}
    prompt = given.facial_prompt
    assert min(prompt.positions) > 77
    assert words_at(prompt, conditioner.tokenizers[0]) == prompt.regions
    changed = (given.prompt_embeds != given.text_only_embeds).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(prompt.positions)
    empty = by_compel(provider(conditioner), [""], [1])
    torch.testing.assert_close(given.negative_embeds, empty.repeat(1, length // 77, 1), rtol=0, atol=1e-6)


def test_texts_of_a_batch_have_the_length_of_the_longest(conditioner, analyses):
    given = conditioner.condition(analyses, ["a man", LONG], negative_prompt=["", LONG], weighted=True)
    alone = conditioner.condition(analyses[0], "a man", weighted=True)
    assert given.prompt_embeds.shape == given.negative_embeds.shape
    torch.testing.assert_close(given.prompt_embeds[:1, :77], alone.prompt_embeds, rtol=0, atol=1e-5)
    reverse = conditioner.condition(analyses[0], "a man", negative_prompt=LONG, weighted=True)
    assert reverse.prompt_embeds.shape == reverse.negative_embeds.shape
    assert reverse.prompt_embeds.shape[1] > 77


def test_other_tokens_are_refused_not_misplaced(conditioner, analyses):
    with pytest.raises(InvalidPrompt, match="other tokens than its parts"):
        conditioner.condition(analyses[0], "a <|endoftext|> woman", weighted=True)


def test_official_mode_weights_and_cuts(with_quirks, analyses):
    conditioner = with_quirks(OFFICIAL_SD15)
    weighted, plain = (conditioner.condition(analyses, "A man", weighted=flag) for flag in (True, False))
    for name in TENSORS:
        torch.testing.assert_close(getattr(weighted, name), getattr(plain, name), rtol=0, atol=1e-5)
    given = conditioner.condition(analyses, "A (man)1.4", weighted=True)
    assert not torch.allclose(given.text_only_embeds, plain.text_only_embeds, atol=1e-3)
    for prompt in given.facial_prompts:
        assert words_at(prompt, conditioner.tokenizers[0]) == prompt.regions
    cut = conditioner.condition(analyses[0], f"({LONG})1.1", weighted=True)
    assert cut.prompt_embeds.shape[1] == 77
    assert cut.facial_prompt.text.startswith("Detail:")
    assert words_at(cut.facial_prompt, conditioner.tokenizers[0]) == cut.facial_prompt.regions


@pytest.mark.parametrize("official", [False, True])
def test_two_text_encoders(with_quirks, second_encoder, analyses, official):
    conditioner = with_quirks(OFFICIAL_SDXL if official else Quirks(text_layer=-2), second=second_encoder)
    weighted, plain = (
        conditioner.condition(analyses[0], "a smiling woman", negative_prompt="dark", weighted=flag)
        for flag in (True, False)
    )
    for name in (*TENSORS, *POOLED):
        torch.testing.assert_close(getattr(weighted, name), getattr(plain, name), rtol=0, atol=1e-5)
    assert torch.equal(weighted.facial_prompt.ids_2, plain.facial_prompt.ids_2)
    given = conditioner.condition(analyses[0], "a (smiling)1.4 woman", negative_prompt="dark", weighted=True)
    text = given.facial_prompt.text_only
    kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    for index, half in enumerate(given.text_only_embeds.chunk(2, dim=-1)):
        one = provider(conditioner, truncate=official, index=index, kind=kind)
        fragments = [piece for piece in ("a", "smiling", text.removeprefix("a smiling ")) if piece]
        torch.testing.assert_close(half, by_compel(one, fragments, [1, 1.4, 1]), rtol=0, atol=1e-5)
    for name in POOLED:
        torch.testing.assert_close(getattr(given, name), getattr(weighted, name), rtol=0, atol=1e-6)
    long = conditioner.condition(analyses[0], LONG, weighted=True)
    assert (long.prompt_embeds.shape[1] > 77) is not official
    assert words_at(long.facial_prompt, conditioner.tokenizers[0]) == long.facial_prompt.regions


def test_prompts_keep_their_order(conditioner, analyses):
    prompts = ["a (man)1.2", "a woman"]
    both = conditioner.condition(analyses, prompts, negative_prompt=["dark", "blurred"], weighted=True)
    for row, prompt in enumerate(prompts):
        one = conditioner.condition(analyses[row], prompt, negative_prompt=["dark", "blurred"][row], weighted=True)
        assert one.facial_prompt.text == both.facial_prompts[row].text
        for name in TENSORS:
            torch.testing.assert_close(getattr(both, name)[row : row + 1], getattr(one, name), rtol=0, atol=1e-5)
