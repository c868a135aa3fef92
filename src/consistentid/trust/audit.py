"""What was made, refused and withheld, one JSON object a line: enough to account for, too little to read about people.

A line holds no prompt, no photo, no name, no path and no hash of a text or a photo, unless that was asked for.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from consistentid.errors import InvalidSettings

Event = Literal["refused", "withheld", "saved"]


@dataclass(frozen=True)
class AuditLog:
    """A file that lines are added to.

    Attributes:
        path: of the file, readable by its owner alone.
        personal: also write what may tell of people: prompts and file names.

    Raises:
        InvalidSettings: the file cannot be written to.
    """

    path: Path
    personal: bool = False

    def __post_init__(self) -> None:
        self._append(b"")

    def note(self, event: Event, facts: Mapping[str, Any], *, personal: Mapping[str, Any] | None = None) -> None:
        """Add a line; lines of several threads and processes never mix.

        Args:
            event: what happened.
            facts: what may always be written.
            personal: what may be written when it was asked for.

        Raises:
            InvalidSettings: the file cannot be written to.
        """
        told = {**facts, **(personal or {})} if self.personal else facts
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **told}
        self._append(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                written = os.write(handle, line)  # one call, so that the system adds the line as a whole
            finally:
                os.close(handle)
            if written != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            raise InvalidSettings(
                f"the audit log {self.path} cannot be written ({error.strerror or error}); nothing is made without it"
            ) from None
