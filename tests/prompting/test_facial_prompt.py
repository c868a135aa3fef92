from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistentid.errors import InvalidPrompt, InvalidSettings
from consistentid.faces.regions import REGION_NAMES, REGIONS
from consistentid.prompting.facial_prompt import compose_facial_prompt, plain_ids
from consistentid.prompting.style import ALIGNED, MARKER, OFFICIAL_SD15, OFFICIAL_SDXL, STYLES, style_named

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"
WORDS = {region.name: region.words for region in REGIONS}
END = 49407


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(PARITY / "tokenizer")


def test_long_captions_of_the_release_are_dropped(tokenizer):
    found = compose_facial_prompt("A man", caption="A face. " * 50, tokenizers=[tokenizer], style=OFFICIAL_SD15)
    assert found.text == "A manDetail:"
    assert found.positions == ()


def test_second_stream_of_sdxl(tokenizer):
    found = compose_facial_prompt("A man", tokenizers=[tokenizer, tokenizer], style=OFFICIAL_SDXL)
    assert found.text.startswith("A man; Detail:The person has one face <|facial|>,")
    assert found.text_only == "A man"
    pieces = tokenizer.convert_ids_to_tokens(found.ids_2[0].tolist())
    assert "facial</w>" in pieces  # the marker stays as text
    assert "facial</w>" not in tokenizer.convert_ids_to_tokens(found.ids[0].tolist())
    aligned = compose_facial_prompt("A man", tokenizers=[tokenizer, tokenizer], style=ALIGNED)
    assert aligned.ids.equal(aligned.ids_2)
    assert aligned.text_only_ids.equal(aligned.text_only_ids_2)


def test_aligned_prompt_reads_well(tokenizer):
    found = compose_facial_prompt("a man in a forest.", tokenizers=[tokenizer], style=ALIGNED)
    assert found.text_only == (
        "a man in a forest, The person has one face, two ears, two eyes, one nose, and one mouth"
    )
    assert found.regions == REGION_NAMES
    words = tokenizer.convert_ids_to_tokens([found.ids[0, position].item() for position in found.positions])
    assert words == ["face</w>", "ears</w>", "eyes</w>", "nose</w>", "mouth</w>"]
    assert found.ids.equal(found.text_only_ids)
    assert plain_ids("", tokenizer, 77).tolist() == [[49406] + [END] * 76]


def test_clauses_about_other_regions_are_left_out(tokenizer):
    found = compose_facial_prompt(
        "a man",
        caption="Long curly hair, big ears and a small nose, thin lips.",
        regions=["mouth"],
        tokenizers=[tokenizer],
        style=ALIGNED,
    )
    assert found.text == "a man, Long curly hair, thin lips <|facial|>"


def test_too_long_captions_lose_unmarked_clauses_first_and_keep_all_regions(tokenizer):
    caption = "A woman with a long face, " + "she wears a very nice hat indeed, " * 12 + "small ears, thin lips"
    found = compose_facial_prompt("a portrait", caption=caption, tokenizers=[tokenizer], style=ALIGNED)
    assert found.regions == ("face", "ears", "mouth")
    assert found.text.startswith("a portrait, A woman with a long face <|facial|>, she wears")
    bare = compose_facial_prompt("word " * 62, tokenizers=[tokenizer], style=ALIGNED)
    assert bare.text_only.endswith("word, face, ears, eyes, nose, mouth")
    whole = compose_facial_prompt("word " * 90, tokenizers=[tokenizer], style=ALIGNED)
    assert (whole.positions, whole.regions) == ((), ())
    assert whole.ids[0, 75].item() != END
    assert whole.ids[0, 76].item() == END


def test_refusals(tokenizer):
    with pytest.raises(InvalidPrompt, match="unknown region 'chin'"):
        compose_facial_prompt("a man", regions=["chin"], tokenizers=[tokenizer], style=ALIGNED)
    with pytest.raises(InvalidPrompt, match="leave it out"):
        compose_facial_prompt(f"a man {MARKER}", tokenizers=[tokenizer], style=ALIGNED)
    with pytest.raises(InvalidSettings, match="unknown facial-prompt style"):
        style_named("mine")


WORD = st.sampled_from(
    [
        "a",
        "man",
        "Face",
        "face",
        "eyes",
        "Eye",
        "ears",
        "nose",
        "lips",
        "mouth",
        "blue,",
        "big.",
        "wide-set",
        "é",
        "\n",
        "{0}",
    ]
)
TEXT = st.one_of(st.text(max_size=60), st.lists(WORD, max_size=110).map(" ".join))


@settings(max_examples=60, deadline=None)
@given(prompt=TEXT, caption=TEXT, regions=st.sets(st.sampled_from(REGION_NAMES)), name=st.sampled_from(sorted(STYLES)))
def test_any_text_gives_a_well_formed_prompt(tokenizer, prompt, caption, regions, name):
    style = STYLES[name]
    found = compose_facial_prompt(prompt, caption=caption, regions=regions, tokenizers=[tokenizer] * 2, style=style)
    ids = found.ids[0].tolist()
    assert found.ids.shape == found.ids_2.shape == found.text_only_ids.shape == (1, 77)
    assert len(found.positions) == len(found.regions) == len(set(found.regions))
    assert set(found.regions) <= set(found.marked_regions) <= regions
    assert list(found.positions) == sorted(set(found.positions))
    assert all(0 < position < 77 for position in found.positions)
    again = compose_facial_prompt(prompt, caption=caption, regions=regions, tokenizers=[tokenizer] * 2, style=style)
    assert again.ids.equal(found.ids)
    if style.always_end:
        assert END in ids
        assert all(position < ids.index(END) for position in found.positions)
        assert found.text.count(MARKER) == len(found.positions)
        for region, position in zip(found.regions, found.positions, strict=True):
            assert tokenizer.decode([ids[position]]).strip().lower() in WORDS[region]


@settings(max_examples=30, deadline=None)
@given(prompt=st.lists(WORD, max_size=60).map(" ".join), caption=TEXT)
def test_aligned_keeps_a_prompt_that_fits(tokenizer, prompt, caption):
    found = compose_facial_prompt(prompt, caption=caption, tokenizers=[tokenizer], style=ALIGNED)
    prompt = prompt.strip().rstrip(".,;").rstrip()
    alone, whole = (
        tokenizer.decode(ids[0], skip_special_tokens=True).replace(" ", "")
        for ids in (plain_ids(prompt, tokenizer, 77), found.ids)
    )
    assert whole.startswith(alone)
