"""The published hold-out rule: people who never enter the training of any part."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar


class OfPerson(Protocol):
    """A record that says whom it shows."""

    @property
    def person(self) -> str:
        """Photos of one person share it."""
        ...


Record = TypeVar("Record", bound=OfPerson)


def is_held_out(person: str, photos: int) -> bool:
    """Whether a person is held out.

    A third of the people with several photos (they can be judged on another photo of the same person) and one in
    forty of the others, chosen by the CRC-32 of the person's name.

    Args:
        person: the record's `person`.
        photos: how many photos of the person the dataset has.
    """
    return zlib.crc32(person.encode()) % (3 if photos > 1 else 40) == 0


def split(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Records for training, and those of held-out people."""
    photos = Counter(record.person for record in records)
    held_out = [is_held_out(record.person, photos[record.person]) for record in records]
    training = [record for record, held in zip(records, held_out, strict=True) if not held]
    return training, [record for record, held in zip(records, held_out, strict=True) if held]
