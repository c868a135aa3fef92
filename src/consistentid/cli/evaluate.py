"""`consistentid evaluate`."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators
from pydantic import ValidationError

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from consistentid.evaluation.config import EvaluationConfig
    from consistentid.evaluation.run import Work

_NEEDED = {  # module: package
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "torchmetrics": "torchmetrics",
    "yaml": "pyyaml",
}

evaluate = App(
    name="evaluate",
    help="Score portraits of people: identity, prompt, variety, with intervals.",
    help_format="plaintext",
)


@Parameter(name="*")
@dataclass(frozen=True)
class Choice:
    """What is evaluated, instead of what the configuration says.

    Attributes:
        photos: folder of people.
        out: folder of portraits, measurements and the report.
        protocol: name of a protocol, or a YAML file.
        subjects: at most so many people.
        blocks: only these blocks of the protocol.
    """

    photos: Path | None = None
    out: Path | None = None
    protocol: str | None = None
    subjects: int | None = None
    blocks: tuple[str, ...] | None = None


@evaluate.default
def score(
    config: str = "configs/evaluate.yaml",
    /,
    *,
    choice: Choice | None = None,
    images: Path | None = None,
    ray: Annotated[int | None, Parameter(name="--ray", validator=validators.Number(gte=1))] = None,
) -> int:
    """Draw portraits of people, measure them, and write a report; what was done before is not done again.

    Args:
        config: YAML file, or a model: embedded, a folder, a hub id.
        choice: instead of what the configuration says.
        images: score the pictures of a folder, named METHOD/PERSON/PROMPT.png, and draw none.
        ray: draw on Ray with so many workers.
    """
    _check_installed()
    from consistentid.evaluation.config import load_config
    from consistentid.evaluation.parts import worker_for
    from consistentid.evaluation.results import save
    from consistentid.evaluation.run import evaluate as run
    from consistentid.evaluation.run import evaluate_folder

    chosen = _with(load_config(config), choice or Choice())
    if ray is not None and find_spec("ray") is None:
        raise InvalidSettings("--ray needs ray, which is not installed: pip install 'consistentid[data]'")
    if images is not None and (ray is not None or (choice or Choice()).blocks is not None):
        raise InvalidSettings("--images draws nothing, so that --ray and --blocks have no meaning beside it")
    worker = worker_for(chosen)
    if images is not None:
        evaluation = evaluate_folder(chosen, worker, images)
    else:
        evaluation = run(chosen, worker, work=None if ray is None else _on_ray(chosen, ray))
    for path in save(evaluation, worker, chosen.out):
        print(path)
    return 0


@evaluate.command
def compare(first: Path, second: Path, /) -> int:
    """Say which of two evaluations is better, paired by person.

    Args:
        first: folder of a finished evaluation.
        second: another one, of the same people and prompts.
    """
    _check_installed()
    from consistentid.evaluation.compare import compare as compared
    from consistentid.evaluation.compare import comparison_table, people_differ
    from consistentid.evaluation.results import load_pictures

    ours, theirs = load_pictures(first), load_pictures(second)
    print(comparison_table(compared(ours, theirs)))
    if note := people_differ(ours, theirs):
        print(f"\n{note}")
    return 0


def _with(config: "EvaluationConfig", choice: Choice) -> "EvaluationConfig":
    changes = {name: value for name, value in vars(choice).items() if value is not None}
    try:
        return type(config).model_validate({**config.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidSettings(f"--{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _on_ray(config: "EvaluationConfig", workers: int) -> "Work":
    from functools import partial

    from consistentid.evaluation.distributed import work_on_ray

    return partial(work_on_ray, config, workers=workers)


def _check_installed() -> None:
    missing = sorted(package for module, package in _NEEDED.items() if find_spec(module) is None)
    if missing:
        raise InvalidSettings(f"evaluation needs {', '.join(missing)}, not installed: pip install 'consistentid[eval]'")
