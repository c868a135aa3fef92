"""Words of a prompt as a reader takes them, however they are written, and the tables of words a policy looks for."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

# A star stands for any ending; phrases match across any spacing or punctuation.
EXPLICIT = (
    "blowjob* bondage bottomless breast breasts cleavage cum cumshot* dominatrix ejaculat* erection* erotic* "
    "exhibitionis* explicit fellatio fetish* genital* handjob* hentai horny intercourse masturbat* naked nipple* nsfw "
    "nude nudes nudity nudist* orgasm* orgy panties penis porn* pron pubic seductive* sex sexual* sexy sexi* slut* "
    "striptease* stripper* topless undress* unclothed upskirt vagina* voyeur* vulva whore* xxx"
).split() + ["without clothes", "no clothes", "bare breasts", "making love", "not safe for work"]
# Harmless for adults, refused when the prompt speaks of a minor.
SUGGESTIVE = (
    "alluring bathing bikini* bra busty corset* flirt* latex lewd lingerie lustful miniskirt* "
    "provocative* sensual* shirtless shower* skimpy stockings sultry swimsuit* swimwear tempting thong* underwear "
    "wet lap"
).split() + ["in bed", "on the bed", "tight clothes", "see through"]
MINOR = (
    "adolescen* babies baby boy boys child childlike children daughter fourteen girl girls grader* infant* juvenile* "
    "kid kids kindergart* lolita loli minor minors nephew newborn* niece preschool* preteen* pubescen* puberty "
    "schoolboy* schoolchild* schoolgirl* shota shotacon son teen teens teenag* toddler* tween* underage* "
    "youngster*"
).split() + ["high school", "middle school", "elementary school", "primary school", "little one"]
# Staying away from these asks for their opposite.
CLOTHES = "clothed clothes clothing covered dressed garment*".split()
ADULT = "adult* mature grownup*".split() + ["grown up"]
INNOCENT = ("baby blue", "baby pink", "baby shower", "bridal shower", "meteor shower", "rain shower")

_ADULT_AGE = 18
_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
).split()
_LOOK_ALIKES = str.maketrans(
    "авекмнорстухіјѕԁһԛԝɑɡıοανρτυχικ",  # Cyrillic, Latin and Greek letters
    "abekmhopctyxijsdhqwagioavptuxik",
)
_LEET = str.maketrans("0345789@$!|", "oeastbgasil")
_SHORTEST_SPLIT = 5  # letters; shorter words appear by chance where two others meet


@dataclass(frozen=True)
class Wording:
    """A text as it is searched for words.

    Attributes:
        readings: the plain words, and what they become when digits are read as letters, letters that stand alone are
            joined, and letters that are repeated are written once or twice.
        pairs: every two neighbouring words written as one.
    """

    readings: tuple[str, ...]
    pairs: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Wording":
        """Read a text in every way that this module knows."""
        letters = _in_latin(text)
        readings = [_words(letters), *(_words(" ".join(_leet(letters, one))) for one in "il")]
        readings += [_joined(reading, without) for reading in readings for without in (0, 1)]
        readings += [re.sub(r"([^\W\d])\1{2,}", once, reading) for reading in readings for once in (r"\1", r"\1\1")]
        words = readings[0].split()
        return cls(tuple(dict.fromkeys(readings)), frozenset(a + b for a, b in pairwise(words)))

    def first(self, table: Sequence[str]) -> str | None:
        """The first word or phrase of a table that the text holds, None when it holds none."""
        pattern, split = _compiled(tuple(table))
        found = (pattern.search(reading) for reading in self.readings)
        return next((match.group() for match in found if match), None) or next(iter(self.pairs & split), None)

    def young_age(self) -> str | None:
        """An age under 18: 'age 12', '12 years old', '12yo', 'twelve years old'."""
        numbers = "|".join(_NUMBERS)
        for pattern in (
            r"\b(\d{1,2}) ?(?:years?|yrs?|yo|y o)\b",
            r"\b(?:age|aged) (\d{1,2})\b",
            rf"\b({numbers}) (?:years?|yrs?) (?:old|of age)\b",
            rf"\baged? ({numbers})\b",
        ):
            for match in re.finditer(pattern, self.readings[0]):
                if not match[1].isdecimal() or int(match[1]) < _ADULT_AGE:
                    return match.group()
        return None


@cache
def _compiled(table: tuple[str, ...]) -> tuple[re.Pattern[str], frozenset[str]]:
    """What finds the entries of a table, and those that are also looked for when written as two words."""
    stems = [(normalise(entry), r"\w*" if entry.endswith("*") else "") for entry in table]
    either = "|".join(f"{re.escape(stem)}{ending}" for stem, ending in stems if stem)
    pattern = re.compile(rf"\b(?:{either})\b" if either else r"(?!)")
    return pattern, frozenset(stem for stem, _ in stems if len(stem) >= _SHORTEST_SPLIT)


def normalise(text: str) -> str:
    """Lower case, no accents, no invisible characters, look-alikes in Latin; every run of anything else one space."""
    return _words(_in_latin(text))


def _in_latin(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    visible = "".join(c for c in decomposed if unicodedata.category(c) not in {"Mn", "Cf"})
    return re.sub(r"['’ʼ`]s\b", "", visible).replace("_", " ").translate(_LOOK_ALIKES)


def _words(text: str) -> str:
    plain = " ".join(re.findall(r"\w+", text))
    for phrase in INNOCENT:
        plain = re.sub(rf"\b{phrase}\b ?", "", plain)
    return plain


def _leet(text: str, one: str) -> Iterator[str]:
    """Words whose digits and signs stand for letters; a number alone stays a number."""
    for word in re.findall(r"[\w@$!|]+", text):
        bare = word.rstrip("!|")
        mixed = re.search(r"[^\W\d]", bare) and re.search(r"[\d@$!|]", bare)
        yield bare.translate(_LEET).replace("1", one) if mixed else bare


def _joined(reading: str, without: int) -> str:
    """Three and more letters that stand alone as one word, which may begin after some of them: `a n u d e`."""
    return re.sub(r"\b\w(?: \w\b){2,}", lambda run: run.group().replace(" ", "")[without:], reading)
