import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistentid.errors import InvalidPrompt
from consistentid.faces.regions import REGION_NAMES
from consistentid.prompting.marking import mark_clauses, word_pattern
from consistentid.prompting.rewording import phrase_of, reworded

TEMPLATE = "The person has one face, two ears, two eyes, one nose, and one mouth."
MEASURED = (
    "The person has a round face with brown hair, two eyes behind glasses, a nose, and a smiling mouth with full lips."
)


@pytest.mark.parametrize(
    ("caption", "words", "expected"),
    [
        (TEMPLATE, {}, TEMPLATE),
        (TEMPLATE, {"eyes": "closed"}, "The person has one face, two ears, closed eyes, one nose, and one mouth."),
        (TEMPLATE, {"mouth": "a laughing mouth"}, TEMPLATE.replace("one mouth", "a laughing mouth")),
        (TEMPLATE, {"eyes": "blue", "nose": "red"}, TEMPLATE.replace("two eyes, one nose", "blue eyes, red nose")),
        (MEASURED, {"face": "freckled"}, MEASURED.replace("The person has a round face", "freckled face")),
        (MEASURED, {"eyes": "closed"}, MEASURED.replace("two eyes", "closed eyes")),
        ("a face", {"ears": "pointed"}, "a face, pointed ears"),
        ("", {"ears": "pointed"}, "pointed ears"),
        ("eyes above a broad nose", {"nose": "red"}, "eyes above a broad red nose"),
    ],
)
def test_captions(caption: str, words: dict[str, str], expected: str) -> None:
    assert reworded(caption, words) == expected


def test_words_of_another_region_are_refused() -> None:
    with pytest.raises(InvalidPrompt, match="the words 'big lips' for face name mouth; give each region its own words"):
        reworded(TEMPLATE, {"face": "big lips"})


def test_phrases() -> None:
    assert phrase_of(TEMPLATE, "mouth") == "one mouth"
    assert phrase_of(MEASURED, "eyes") == "two eyes"
    assert phrase_of(MEASURED, "ears") is None
    assert phrase_of("eyes above a broad nose", "nose") is None


@given(
    st.sampled_from([TEMPLATE, MEASURED, "a nose and eyes; ears", ""]),
    st.dictionaries(st.sampled_from(REGION_NAMES), st.sampled_from(["closed", "very large", "x"])),
)
def test_every_region_keeps_its_word_and_its_mark(caption: str, words: dict[str, str]) -> None:
    named = {name for name in REGION_NAMES if word_pattern(name).search(caption)} | set(words)
    clauses = mark_clauses(reworded(caption, words), REGION_NAMES)
    assert {region for clause in clauses for region in clause.regions} == named
