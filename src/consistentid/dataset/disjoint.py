"""Disjoint sets of the numbers 0 to n - 1 that grow together."""


class DisjointSets:
    """At first every number is a set of its own; a set is called by its smallest number."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def find(self, number: int) -> int:
        """The smallest number of the set that holds this one."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def join(self, first: int, second: int) -> int:
        """Make one set of the two that hold these numbers, and return its smallest number."""
        kept, other = sorted((self.find(first), self.find(second)))
        self._parents[other] = kept
        return kept
