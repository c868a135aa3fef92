"""Which portraits an evaluation draws, in which batches, with which seeds: a pure function of protocol and people."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from consistentid.errors import InvalidData
from consistentid.evaluation.protocols import Block, Protocol
from consistentid.evaluation.subjects import Subject, spread


@dataclass(frozen=True, order=True)
class Shot:
    """One portrait.

    Attributes:
        method: name of how it is drawn.
        prompt: name of the prompt.
        index: which portrait of the same person and prompt.
        subject: name of the person.
        beside: who else is in the picture; in the plan of a pair, the second of them.
    """

    method: str
    prompt: str
    index: int
    subject: str
    beside: str = ""

    @property
    def seed(self) -> int:
        """Of person, prompt and index alone, so that all methods start from the same noise."""
        text = f"{self.subject}\n{self.prompt}\n{self.index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1

    @property
    def of_each(self) -> "tuple[Shot, ...]":
        """The same picture as one of every person in it."""
        return (self, replace(self, subject=self.beside, beside=self.subject)) if self.beside else (self,)


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes:
        blocks: the portraits of every block, which may share some.
        batches: every portrait once; portraits of a batch share method, prompt and index. What is in a batch does not
            depend on what exists already, because sums may differ in their last bit with the batch.
    """

    blocks: Mapping[str, tuple[Shot, ...]]
    batches: tuple[tuple[Shot, ...], ...]


def plan(
    protocol: Protocol,
    subjects: Sequence[Subject],
    *,
    batch_size: int,
    baselines: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Plan:
    """Lay out an evaluation.

    Args:
        protocol: what is asked.
        subjects: of whom.
        batch_size: portraits in a batch, at most.
        baselines: methods that take part wherever `full` does.
        only: names of blocks; empty means all.

    Raises:
        InvalidData: there is no such block.
    """
    if unknown := [name for name in only if name not in protocol.blocks]:
        raise InvalidData(f"the protocol has no block {unknown[0]!r}; choose from {', '.join(protocol.blocks)}")
    chosen = {name: block for name, block in protocol.blocks.items() if not only or name in only}
    blocks = {name: _shots(protocol, block, subjects, baselines) for name, block in chosen.items()}
    groups: dict[tuple[str, str, int], list[Shot]] = {}
    for shot in dict.fromkeys(shot for shots in blocks.values() for shot in shots):
        groups.setdefault((shot.method, shot.prompt, shot.index), []).append(shot)
    batches = [
        tuple(sorted(group)[start : start + batch_size])
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]
    return Plan(blocks, tuple(batches))


def _shots(protocol: Protocol, block: Block, subjects: Sequence[Subject], baselines: Sequence[str]) -> tuple[Shot, ...]:
    names = protocol.methods_of(block)
    if unknown := [name for name in names if name not in protocol.all_methods()]:
        raise InvalidData(f"there is no method {unknown[0]!r}; choose from {', '.join(protocol.all_methods())}")
    chosen = [subject.name for subject in spread(subjects, block.subjects)]
    pairs = list(zip(chosen[::2], chosen[1::2], strict=False))  # of an odd number, the last one is left over
    return tuple(
        Shot(method, prompt, index, *people)
        for method in (*names, *(baselines if "full" in names else ()))
        for prompt in protocol.prompts_of(block)
        for index in range(block.images)
        for people in (pairs if protocol.people_per_picture > 1 else ((name,) for name in chosen))
    )
