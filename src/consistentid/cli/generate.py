"""`consistentid generate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import BaseModel

from consistentid.cli.options import Loading, Manner, OtherPhotos, TaskInputs
from consistentid.errors import InvalidSettings
from consistentid.generation.settings import GenerationSettings, preset_settings


def generate(
    photo: Path | None = None,
    prompt: str | None = None,
    /,
    *,
    settings: Annotated[GenerationSettings | None, Parameter(name="*")] = None,
    others: Annotated[OtherPhotos | None, Parameter(name="*")] = None,
    task: Annotated[TaskInputs | None, Parameter(name="*")] = None,
    manner: Annotated[Manner | None, Parameter(name="*")] = None,
    loading: Annotated[Loading | None, Parameter(name="*")] = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    sheet: Path | None = None,
    jobs: Path | None = None,
    like: Path | None = None,
    preset: str | None = None,
    server: str | None = None,
) -> int:
    """Make portraits of the person in a photo, many from a file of jobs, or one again like an earlier portrait.

    Args:
        photo: the photo of one person.
        prompt: what the portrait shall show.
        settings: of the portraits.
        others: photos of other people.
        task: what is made, and from which pictures.
        manner: other ways to make them.
        loading: which model, and how it runs.
        out: a .png, .jpg or .webp file (several portraits get _0, _1, … before the suffix), or a folder. Default:
            portrait.png.
        sheet: also write one picture with the photo, its regions and the portraits; of a morph, the strip.
        jobs: JSON lines, each with name, photo, prompt, seed and any other setting; --out is the folder for all. Run
            again, it skips what is there already.
        like: a portrait made by this command; it is made again, bit for bit on the same machine. Give PHOTO (and
            --parts, --blend-with, --same, --beside) when the photo has moved.
        preset: settings by name (sd15-demo, sdxl-demo, lcm, lightning, turbo, tcd) or a JSON file of your own; options
            that are given beside it win.
        server: address of a `consistentid serve`, which makes the portraits instead of this machine; the environment
            variable CONSISTENTID_API_KEY holds the key.
    """
    from consistentid.cli import actions

    chosen, how, work = settings or GenerationSettings(), loading or Loading(), task or TaskInputs()
    others, manner = others or OtherPhotos(), manner or Manner()
    given = {**_given(chosen), **vars(manner), **vars(work), "prompt": prompt, "preset": preset}
    if manner.into_face is not None and manner.into is None:
        raise InvalidSettings("--into-face says who is replaced in the picture --into; give that too, or leave it out")
    if jobs is not None:
        _only("--jobs FILE", photo=photo, like=like, sheet=sheet, server=server, **vars(others), **given)
        return actions.run_job_file(jobs, out=out, loading=how)
    if like is not None:
        _only("--like FILE", **_loading(how), server=server, **given)
        return actions.make_again(like, photo=photo, others=others, out=out, sheet=sheet, loading=how)
    if photo is None or prompt is None:
        raise InvalidSettings("give a photo and a prompt, or --jobs FILE, or --like PORTRAIT.png")
    if server is not None:
        here = {name: value for name, value in vars(manner).items() if name not in ("into", "into_face")}
        networks = {"controlnet": work.controlnet, "control_image": work.control_image}
        _only("--server URL", sheet=sheet, **here, **networks, **_loading(how))
    if preset is not None:
        chosen = preset_settings(preset).model_copy(update=chosen.model_dump(exclude_unset=True))
    if server is not None:
        from consistentid.cli.remote import make_there

        return make_there(server, photo, prompt, settings=chosen, others=others, work=work, manner=manner, out=out)
    return actions.make(
        photo, prompt, settings=chosen, others=others, work=work, manner=manner, out=out, sheet=sheet, loading=how
    )


def _given(settings: BaseModel) -> dict[str, bool]:
    return dict.fromkeys(settings.model_fields_set, True)


def _loading(how: Loading) -> dict[str, object]:
    """What was said of the model and how it runs."""
    said = {name: getattr(how, name) for name in ("model", "adapter", "device", "batch_size")}
    return {**said, "dtype": how.dtype != "auto", **_given(how.optimisation)}


def _only(option: str, **others: object) -> None:
    """Refuse what has no meaning beside an option."""
    clashing = [name.replace("_", "-") for name, value in others.items() if value]
    if clashing:
        raise InvalidSettings(
            f"{option} decides {', '.join(clashing)}; leave {'it' if len(clashing) == 1 else 'them'} out"
        )
