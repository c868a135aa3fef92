"""One line of `consistentid doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report; `advice` is empty when all is well."""

    name: str
    found: str
    advice: str = ""
    needed: bool = True

    @property
    def verdict(self) -> str:
        """ok, missing, or (not needed by default) optional."""
        if not self.advice:
            return "ok"
        return "missing" if self.needed else "optional"
