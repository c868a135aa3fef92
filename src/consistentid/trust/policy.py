"""What may be asked for: the protocol of a policy, and the built-in one, which reads the prompt.

A word list is a fence, not a judge: it refuses the plain cases, in English, before anything is computed, and says so.
It cannot see meaning, other languages or the photo. Whoever runs a service adds a policy of their own and keeps the
checks of the pictures (`trust.gates`) on.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.trust.wording import ADULT, CLOTHES, EXPLICIT, MINOR, SUGGESTIVE, Wording

Consent = Literal["stated", "not stated"]


@dataclass(frozen=True)
class Asked:
    """What a policy is asked before anything is computed.

    Attributes:
        prompt: what the portrait shall show, without weights of words.
        negative_prompt: what it shall stay away from, likewise.
        wordings: further texts that reach the text encoder: a caption, words of regions.
        task: entry of `generation.tasks.TASKS`.
        photos: how many photos of people are used.
        consent: whether the caller stated that the people in them agreed.
    """

    prompt: str
    negative_prompt: str = ""
    wordings: tuple[str, ...] = ()
    task: str = "text-to-image"
    photos: int = 1
    consent: Consent = "not stated"


@runtime_checkable
class Policy(Protocol):
    """Decides whether a request may be carried out."""

    def check(self, asked: Asked) -> None:
        """Accept the request, or refuse it.

        Raises:
            PromptRefused: the request breaks the policy; the message says how, in one sentence.
        """
        ...


@dataclass(frozen=True)
class PromptPolicy:
    """Reads the prompt; a generator applies it by default.

    Attributes:
        refuse_sexualised: refuse explicit prompts about adults as well. Prompts that join minors with explicit or
            suggestive words are refused whatever this says.
        blocked: further words, names or phrases to refuse, with a star for any ending.
        require_consent: refuse requests for which consent is not stated.
    """

    refuse_sexualised: bool = True
    blocked: tuple[str, ...] = ()
    require_consent: bool = False

    def check(self, asked: Asked) -> None:
        """See `Policy.check`.

        Raises:
            PromptRefused: the message names the words; its `rule` is minor, sexualised, blocked or consent.
        """
        if self.require_consent and asked.consent != "stated":
            raise PromptRefused(
                "this installation needs it stated that the person in the photo agreed: consent=stated", rule="consent"
            )
        text = Wording.of(" . ".join((asked.prompt, *asked.wordings)))
        avoided = Wording.of(asked.negative_prompt)
        explicit = text.first(EXPLICIT) or _without(avoided.first(CLOTHES))
        minor = text.first(MINOR) or text.young_age() or (_without(avoided.first(ADULT)) if explicit else None)
        wrong = explicit or text.first(SUGGESTIVE)
        if minor and wrong:
            raise PromptRefused(
                f"the prompt joins a minor (“{minor}”) with “{wrong}”, which is never allowed; leave one of them out",
                rule="minor",
            )
        if explicit and self.refuse_sexualised:
            raise PromptRefused(
                f"the prompt asks for sexualised content (“{explicit}”); describe the portrait otherwise",
                rule="sexualised",
            )
        blocked = text.first(self.blocked)
        if blocked:
            raise PromptRefused(
                f"the prompt contains “{blocked}”, which the policy of this installation blocks", rule="blocked"
            )


@dataclass(frozen=True)
class AllOf:
    """Several policies, each of which must accept; the first that refuses is heard."""

    policies: tuple[Policy, ...]

    def check(self, asked: Asked) -> None:
        """See `Policy.check`."""
        for policy in self.policies:
            policy.check(asked)


def read_words(path: str | Path) -> tuple[str, ...]:
    """Words, names or phrases, one a line; lines that begin with # are remarks.

    Raises:
        InvalidSettings: the file cannot be read.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidSettings(f"the list of blocked words {path} cannot be read ({error}); check the path") from None
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def named_policy(name: str) -> Policy:
    """A policy of your own, by name.

    Args:
        name: `package.module:attribute`, a policy or a class of one that takes no arguments.

    Raises:
        InvalidSettings: there is no such policy.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
        policy = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidSettings(f"there is no policy {name!r} ({error}); give package.module:attribute") from None
    if not isinstance(policy, Policy):
        raise InvalidSettings(f"{name} is no policy; it needs a method check(asked)")
    return policy


def _without(word: str | None) -> str | None:
    """What a negative prompt asks for by its opposite."""
    return word and f"without {word}"
