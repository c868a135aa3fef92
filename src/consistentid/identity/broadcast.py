"""Arguments of a batch: one for all, or one for each."""

from typing import Any

from consistentid.errors import InvalidSettings


def batch_size(*values: object) -> int:
    """Length of the lists among some values; 1 when there is none.

    Raises:
        InvalidSettings: the lists differ in length, or are empty.
    """
    lengths = {len(value) for value in values if isinstance(value, list | tuple)}
    if len(lengths) > 1 or 0 in lengths:
        raise InvalidSettings(
            f"lists of {' and '.join(str(length) for length in sorted(lengths))} entries were given for faces, "
            "prompts, negative prompts and captions; give one for all or one for each image"
        )
    return lengths.pop() if lengths else 1


def each(value: Any, count: int) -> list[Any]:
    """A list as it is, one value as many times as needed."""
    return list(value) if isinstance(value, list | tuple) else [value] * count
