"""Is it the same run that goes on: its configuration is kept in its folder."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from consistentid.dataset.files import write_text
from consistentid.errors import InvalidSettings
from consistentid.training.process import this_process

CONFIGURATION_NAME = "configuration.json"
# What may change while a run goes on: where things are, and what is only looked at.
_FREE = {
    "dataset", "out", "offline", "workers", "held_out", "precompute", "loop.steps", "loop.checkpoint_every",
    "loop.keep_checkpoints", "loop.validate_every", "loop.log_every", "loop.trackers", "loop.max_minutes",
}  # fmt: skip


def begin_or_continue(folder: Path, config: BaseModel) -> None:
    """Keep a run's configuration, or compare with the one that it began with.

    Args:
        folder: of the run.
        config: today's.

    Raises:
        InvalidSettings: a key that decides what is learnt is not what it was.
    """
    path, process = folder / CONFIGURATION_NAME, this_process()
    today = config.model_dump(mode="json")
    if path.is_file():
        before, now = _flat(json.loads(path.read_text())), _flat(today)
        for key in sorted(before.keys() | now.keys()):
            if not any(f"{key}.".startswith(f"{free}.") for free in _FREE) and before.get(key) != now.get(key):
                raise InvalidSettings(
                    f"{folder} holds a run with {key}: {before.get(key)}, not {now.get(key)}; change it back or choose "
                    "another `out`"
                )
    process.wait_for_everyone()
    if process.is_main_process and not path.is_file():
        write_text(path, json.dumps(today, indent=2) + "\n")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
