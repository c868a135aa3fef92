import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistentid.errors import PromptRefused
from consistentid.trust.policy import EXPLICIT, MINOR, SUGGESTIVE, PromptPolicy
from consistentid.trust.provenance import declares_generated, xmp_packet


@pytest.mark.parametrize(
    "prompt",
    [
        "a portrait photo of a smiling woman, blue background",
        "a man in a double-breasted suit, grey hair",
        "a boy with brown hair, serious",
        "a 12 years old girl on a horse, oil painting",
        "Sussex countryside, a person in an analysis class",
        "a woman in a bikini on the beach",
        "two eyes, black pupils",
        "",
    ],
)
def test_ordinary_prompts_pass(prompt: str) -> None:
    PromptPolicy().check(prompt)


@pytest.mark.parametrize(
    "prompt",
    ["a nude woman", "NAKED man", "n\u0075de", "nu\u200bde", "a sexy pose", "without   clothes", "núde", "x_nsfw_x"],
)
def test_explicit_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(PromptRefused, match="sexualised"):
        PromptPolicy().check(prompt)
    PromptPolicy(refuse_sexualised=False).check(prompt)


@pytest.mark.parametrize(
    "prompt",
    ["a nude child", "a girl in lingerie", "sexy teenager", "12 year old in a bikini", "woman aged 16, topless"],
)
def test_minors_are_never_sexualised(prompt: str) -> None:
    for policy in (PromptPolicy(), PromptPolicy(refuse_sexualised=False)):
        with pytest.raises(PromptRefused, match="minor"):
            policy.check(prompt)


def test_own_words_and_hooks() -> None:
    policy = PromptPolicy(blocked=("Jane Doe", "weapon*"), hooks=(lambda text: "too loud" if text.isupper() else None,))
    policy.check("a portrait of a person")
    for prompt, reason in (("portrait of jane  doe", "jane doe"), ("WEAPONS", "weapons"), ("LOUD", "too loud")):
        with pytest.raises(PromptRefused, match=reason):
            policy.check(prompt)


@given(st.text())
def test_any_text_is_accepted_or_refused_in_one_sentence(text: str) -> None:
    message = ""
    try:
        PromptPolicy().check(text)
    except PromptRefused as error:
        message = str(error)
    assert "\n" not in message


def test_the_table_has_plain_words() -> None:
    for word in (*EXPLICIT, *SUGGESTIVE, *MINOR):
        assert word == word.casefold().strip()


def test_provenance_is_well_formed() -> None:
    import xml.etree.ElementTree as ET

    packet = xmp_packet(tool='consistentid "1" & <2>')
    ET.fromstring(packet)
    assert declares_generated(packet)
    assert not declares_generated("<x/>")
