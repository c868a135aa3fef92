"""Every refusal of the library, each one sentence that says what is wrong and what to do."""


class ConsistentIDError(Exception):
    """Root of the library's own errors; front doors print its message and exit with 1."""


class UnreadableImage(ConsistentIDError):
    """The file is missing, truncated, too large or no image."""


class NoFaceFound(ConsistentIDError):
    """No face, or none large enough, was found in the photo."""


class FaceNotSelected(ConsistentIDError):
    """The requested face does not exist among those found."""


class WeightsNotFound(ConsistentIDError):
    """A model's files are missing, incomplete or of another layout."""


class InvalidPrompt(ConsistentIDError):
    """The prompt or caption cannot be used."""


class InvalidSettings(ConsistentIDError):
    """A setting is out of range or contradicts another one."""


class InvalidData(ConsistentIDError):
    """A dataset, a job file or a configuration is malformed."""


class PromptRefused(ConsistentIDError):
    """The prompt breaks the policy on what may be made.

    Attributes:
        rule: which rule, in a word that repeats nothing of the prompt.
    """

    def __init__(self, message: str, *, rule: str = "policy") -> None:
        super().__init__(message)
        self.rule = rule


class GenerationCancelled(ConsistentIDError):
    """The caller asked to stop while portraits were being made."""


class NumbersOverflowed(ConsistentIDError):
    """A picture would be black, because numbers of too few bits overflowed."""


class TrainingStopped(ConsistentIDError):
    """Training stopped when it was told to, before its end; the same command goes on."""


class NotReproducible(ConsistentIDError):
    """A portrait cannot be made again here: its photo, its weights or its record differ."""


def first_line(error: BaseException) -> str:
    """What an error says first; libraries go on with advice."""
    return str(error).strip().partition("\n")[0]
