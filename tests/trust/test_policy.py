from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.trust.policy import AllOf, Asked, Policy, PromptPolicy, named_policy, read_words
from consistentid.trust.wording import ADULT, CLOTHES, EXPLICIT, INNOCENT, MINOR, SUGGESTIVE

LENIENT = PromptPolicy(refuse_sexualised=False)


class NoShouting:
    """A policy of one's own."""

    def check(self, asked: Asked) -> None:
        if asked.prompt.isupper():
            raise PromptRefused("the prompt shouts; write it in lower case", rule="shouting")


@pytest.mark.parametrize(
    "prompt",
    [
        "a portrait photo of a smiling woman, blue background",
        "a man in a double-breasted suit, grey hair",
        "a boy with brown hair, serious",
        "a 12 years old girl on a horse, oil painting",
        "a portrait of a woman with her child's drawing",
        "the woman's ex husband",
        "a mother breastfeeding her baby, painting by Renoir",
        "a woman at a baby shower with children, balloons",
        "a woman in a baby blue bikini",
        "Sussex countryside, a person in an analysis class",
        "a woman in a bikini on the beach",
        "two eyes, black pupils, 4k, 8k, f1.4, 85mm, 1980s",
        "a comic strip performance, B&W, 3/4 view!!",
        "a person in the middle of Essex, Middlesex at dusk",
        "U S A flag, a man from D C",
        "a son and his father, black and white",
        "",
    ],
)
def test_ordinary_prompts_pass(prompt: str) -> None:
    PromptPolicy().check(Asked(prompt, negative_prompt="nude, nsfw, child, lingerie, underwear, adult content"))


@pytest.mark.parametrize(
    "prompt",
    [
        "a nude woman", "NAKED man", "nu\u200bde", "a sexy pose", "without   clothes", "núde", "x_nsfw_x",
        "n4ked", "a s3xy pose", "n@ked", "t0pl3ss", "n a k e d woman", "a n.a.k.e.d man", "n-u-d-e", "n u d e",
        "nаkеd",  # Cyrillic а and е
        "ｎａｋｅｄ", "nakeddd", "seeexy", "na ked", "top less", "𝓷𝓾𝓭𝓮", "n_u_d_e", "p0rn", "pr0n", "eroti¢" "c",
    ],
)  # fmt: skip
def test_explicit_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(PromptRefused, match="sexualised") as caught:
        PromptPolicy().check(Asked(prompt))
    assert caught.value.rule == "sexualised"
    LENIENT.check(Asked(prompt))


@pytest.mark.parametrize(
    "asked",
    [
        Asked("a nude child"), Asked("a girl in lingerie"), Asked("sexy teenager"), Asked("12 year old in a bikini"),
        Asked("woman aged 16, topless"), Asked("ch1ld, n4ked"), Asked("g1rl in a b1kini"), Asked("1olita in bed"),
        Asked("c h i l d in lingerie"), Asked("a twelve years old in a swimsuit"), Asked("k.i.d, shirtless"),
        Asked("teeen in a thong"), Asked("сhild in lingerie"), Asked("15yo, wet"),
        Asked("a child", wordings=("a mouth, naked body",)),  # the two halves in two texts
        Asked("portrait of a girl", negative_prompt="clothes, hat"),
        Asked("a nude woman", negative_prompt="adult, mature"),
    ],
)  # fmt: skip
def test_minors_are_never_sexualised(asked: Asked) -> None:
    for policy in (PromptPolicy(), LENIENT):
        with pytest.raises(PromptRefused, match="minor") as caught:
            policy.check(asked)
        assert caught.value.rule == "minor"


def test_the_negative_prompt_may_not_undress() -> None:
    with pytest.raises(PromptRefused, match="without clothes"):
        PromptPolicy().check(Asked("a woman", negative_prompt="clothes"))


def test_blocked_words_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "blocked.txt"
    file.write_text("# names\nJane Doe\nMüller\n\n  weapon*  \nИванов\n", encoding="utf-8")
    policy = PromptPolicy(blocked=read_words(file))
    for innocent in ("a portrait of a person", "Jane at the door, a doe", "muller-thurgau wine"):
        if "muller" not in innocent:
            policy.check(Asked(innocent))
    for prompt, word in (
        ("portrait of jane  doe", "jane doe"),
        ("J4ne D0e", "jane doe"),
        ("jane-doe's dog", "jane doe"),
        ("MULLER", "muller"),
        ("WEAPONS", "weapon"),
        ("w e a p o n", "weapon"),
        ("иванов", "blocks"),
    ):
        with pytest.raises(PromptRefused, match=word) as caught:
            policy.check(Asked(prompt))
        assert caught.value.rule == "blocked"
    with pytest.raises(InvalidSettings, match="cannot be read"):
        read_words(tmp_path / "missing.txt")


def test_consent_may_be_required() -> None:
    policy = PromptPolicy(require_consent=True)
    policy.check(Asked("a person", consent="stated"))
    with pytest.raises(PromptRefused, match="consent=stated"):
        policy.check(Asked("a person"))


def test_own_policies_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "house_rules.py").write_text(
        "from consistentid.errors import PromptRefused\n"
        "class Quiet:\n"
        "    def check(self, asked):\n"
        "        if asked.task == 'inpaint':\n"
        "            raise PromptRefused('no inpainting here')\n"
        "quiet = Quiet()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("house_rules:quiet", "house_rules:Quiet"):
        policy = AllOf((PromptPolicy(), NoShouting(), named_policy(name)))
        assert isinstance(policy, Policy)
        policy.check(Asked("a person"))
        for asked, rule in (
            (Asked("A PERSON"), "shouting"),
            (Asked("a person", task="inpaint"), "policy"),
            (Asked("naked"), "sexualised"),
        ):
            with pytest.raises(PromptRefused) as caught:
                policy.check(asked)
            assert caught.value.rule == rule
    for name in ("house_rules:missing", "no_such_module:policy", "house_rules", "house_rules:PromptRefused"):
        with pytest.raises(InvalidSettings, match=r"policy"):
            named_policy(name)


@given(st.text(), st.text())
def test_any_text_is_accepted_or_refused_in_one_sentence(text: str, negative: str) -> None:
    message = ""
    try:
        PromptPolicy().check(Asked(text, negative_prompt=negative))
    except PromptRefused as error:
        message = str(error)
    assert "\n" not in message


@given(st.sampled_from(EXPLICIT), st.sampled_from(MINOR))
def test_every_word_of_the_tables_is_found(explicit: str, minor: str) -> None:
    with pytest.raises(PromptRefused, match="minor"):
        LENIENT.check(Asked(f"{minor.strip('*')}, {explicit.strip('*')}"))


def test_the_tables_have_plain_words() -> None:
    for word in (*EXPLICIT, *SUGGESTIVE, *MINOR, *CLOTHES, *ADULT, *INNOCENT):
        assert word == word.casefold().strip()
