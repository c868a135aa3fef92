"""The command `consistentid`: one verb per module, imported when it is called."""

import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App, CycloptsError

from consistentid.errors import ConsistentIDError, TrainingStopped


def _version() -> str:
    try:
        return version("consistentid")
    except PackageNotFoundError:
        return "unknown (not installed)"


app = App(
    name="consistentid",
    help="Portraits of the person in a photo, that follow a prompt.",
    version=_version,
    help_format="plaintext",
)
_VERBS = {
    "generate": "Make portraits of the person in a photo.",
    "analyze": "Show what is found in a photo: face, landmarks, regions.",
    "dataset": "Build datasets for training from photos.",
    "train": "Train what a configuration file describes.",
    "evaluate": "Score portraits of people: identity, prompt, variety, with intervals.",
    "verify": "Say what a picture is, who signed it, and whether it was changed.",
    "certificate": "Make a certificate of your own that signs your pictures.",
    "serve": "Serve the HTTP API.",
    "weights": "List, fetch, verify and convert weights.",
    "doctor": "Check what is installed and where weights are.",
}
for _verb, _help in _VERBS.items():
    app.command(f"consistentid.cli.{_verb}:{_verb}", name=_verb, help=_help)
app.command("consistentid.cli.web_app:web_app", name="app", help="Open the web app in a browser on this machine.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    0: done, 1: refused or failed, 2: not understood, 3: stopped as it was told, 130: interrupted.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it advises on torchvision, which is not used here
    logging.basicConfig(format="consistentid: %(message)s", level=logging.WARNING)
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _complain(f"{_sentence(error)} See `consistentid --help`.")
        return 2
    except TrainingStopped as error:
        _complain(str(error))
        return 3
    except ConsistentIDError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    return code if isinstance(code, int) else 0


def _complain(sentence: str) -> None:
    sys.stderr.write(f"consistentid: {sentence}\n")


def _sentence(error: CycloptsError) -> str:
    """What is wrong, without pydantic's pointers to its own documentation."""
    from pydantic import ValidationError

    cause = error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        problems = (
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}".lstrip(": ")
            for each in cause.errors()
        )
        return "; ".join(problems) + "."
    return re.sub(r"\s+", " ", str(error)).strip()
