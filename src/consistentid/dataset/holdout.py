"""The published hold-out rule: people who never enter the training of any part."""

import zlib
from collections import Counter
from collections.abc import Iterable


def is_held_out(person: str, photos: int) -> bool:
    """Whether a person is held out.

    A third of the people with several photos (they can be judged on another photo of the same person) and one in
    forty of the others, chosen by the CRC-32 of the person's name.

    Args:
        person: the record's `person`.
        photos: how many photos of the person the dataset has.
    """
    return zlib.crc32(person.encode()) % (3 if photos > 1 else 40) == 0


def held_out_rows(people: Iterable[str]) -> list[int]:
    """Indices of the photos of held-out people, of the people of all photos."""
    names = list(people)
    photos = Counter(names)
    return [index for index, name in enumerate(names) if is_held_out(name, photos[name])]
