"""Weights in compel's syntax, read by compel."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistentid.errors import InvalidPrompt, InvalidSettings
from consistentid.identity.weighted_prompt import WeightedPrompt, text_of


def test_weights_are_read() -> None:
    parsed = WeightedPrompt.parse("a (smiling)1.3 woman with glasses++, (old)0.6, \\(tall\\)")
    weights = [(text, round(weight, 3)) for text, weight in parsed.fragments]
    assert weights == [
        ("a", 1), ("smiling", 1.3), ("woman with", 1), ("glasses", 1.21), (",", 1), ("old", 0.6), (", (tall)", 1),
    ]  # fmt: skip
    assert parsed.text == "a smiling woman with glasses , old , (tall)"
    assert WeightedPrompt.parse("a woman, in a  forest").fragments == (("a woman, in a forest", 1),)
    assert WeightedPrompt.parse("").fragments == WeightedPrompt.parse("()0.5").fragments == ()
    assert text_of("a (smiling)1.3 woman", weighted=True) == "a smiling woman"
    assert text_of("a (smiling)1.3 woman", weighted=False) == "a (smiling)1.3 woman"


def test_a_prompt_is_found_in_a_longer_text() -> None:
    parsed = WeightedPrompt.parse("a (smiling)1.3 woman")
    assert parsed.within("a smiling woman, one face") == (("a", 1), ("smiling", 1.3), ("woman, one face", 1))
    assert parsed.within("Detail: a face Caption:a smiling woman")[0] == ("Detail: a face Caption:a", 1)
    assert WeightedPrompt.parse("smiling++").within("smiling, face")[1] == (", face", 1)
    assert WeightedPrompt.parse("").within("one face") == (("one face", 1),)


def test_punctuation_at_the_end_goes() -> None:
    assert WeightedPrompt.parse("a (woman. .)1.3 ., ;").trimmed().fragments == (("a", 1), ("woman", 1.3))
    assert WeightedPrompt.parse("(.)1.3,").trimmed().fragments == ()


@pytest.mark.parametrize(
    "prompt",
    [
        '("a woman", "a man").blend(0.5, 0.5)', '("a woman", "a man").and()', '("a woman").and() in a forest',
        "a cat.swap(dog) in a forest", "a woman withLora(style, 0.5)", "useLora(style) a woman",
    ],
)  # fmt: skip
def test_only_weights_are_accepted(prompt: str) -> None:
    with pytest.raises(InvalidPrompt, match="only weights can be used here"):
        WeightedPrompt.parse(prompt)


def test_what_parsing_cannot_do_is_refused() -> None:
    with pytest.raises(InvalidPrompt, match="nested more than 4 deep"):
        WeightedPrompt.parse("(" * 30 + "a" + ")" * 30)
    for prompt in ("a (woman)1000", f"a (woman){'9' * 400}", "woman" + "+" * 9000):
        with pytest.raises(InvalidPrompt, match="larger than 100"):
            WeightedPrompt.parse(prompt)


def test_without_compel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compel.prompt_parser", None)
    with pytest.raises(InvalidSettings, match=r"needs compel: pip install 'consistentid\[weighting\]'"):
        WeightedPrompt.parse("a woman")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a", "word", " ", ",", ".", "(", ")1.3", "++", '"', "\\", "0.5", "é", "\xa0"]), max_size=12
    )
)
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    try:
        fragments = WeightedPrompt.parse("".join(pieces)).fragments
    except InvalidPrompt:
        return
    assert all(text.strip() == text and weight >= 0 for text, weight in fragments)
    assert all(one[1] != next_[1] for one, next_ in pairwise(fragments))
