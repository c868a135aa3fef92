"""Which checks of finished pictures a loaded model gets."""

import logging
from pathlib import Path
from typing import Any

from consistentid.generation.downloads import announce, safety_checker
from consistentid.generation.loading import EMBEDDED, Parts, quiet_loading
from consistentid.trust.gates import Gate, NudityGate, SafetyChecker
from consistentid.trust.safeguards import Safeguards

logger = logging.getLogger(__name__)

_ALONE = "CompVis/stable-diffusion-safety-checker"  # the same checker in a repository of its own


def gates_for(parts: Parts, safeguards: Safeguards, *, model: str | Path, offline: bool) -> list[Gate]:
    """The gates of a pipeline; the checker that it runs itself, as SD 1.5 does, is none of them.

    Args:
        parts: its pipeline loses its own checker when the safeguards say none, or name another one.
        safeguards: what the user wants.
        model: as it was named.
        offline: never download.

    Raises:
        WeightsNotFound: a checker that was named is not there.
        InvalidSettings: the nudity gate is not installed.
    """
    chosen: list[Gate] = []
    checker = _checker(parts.pipeline, safeguards.safety_checker, model=model, offline=offline)
    if checker is not None:
        chosen.append(checker)
    if safeguards.nudity_gate is not None:
        chosen.append(NudityGate(safeguards.nudity_gate))
    return chosen


def _checker(pipeline: Any, wanted: str, *, model: str | Path, offline: bool) -> SafetyChecker | None:
    own = getattr(pipeline, "safety_checker", None)
    source: str | Path | None = wanted
    if wanted == "auto":
        if own is not None or str(model) == EMBEDDED:  # which has seen members of parliaments and drawn faces only
            return None
        source = safety_checker(model, offline=offline)
        if source is None:
            logger.warning(
                "%s has no safety checker; --safety-checker %s downloads one, --safety-checker none does without",
                model,
                _ALONE,
            )
            return None
    if own is not None:
        pipeline.register_to_config(requires_safety_checker=False)
        pipeline.safety_checker = None
    if source == "none":
        return None
    announce(source, "safety checker", offline=offline)
    with quiet_loading(bars=not offline):
        return SafetyChecker.from_pretrained(str(source), offline=offline, device=pipeline._execution_device)
