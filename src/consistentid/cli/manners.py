"""Ways to make portraits: plain, a morph, the best of many, in a picture, or with their attention drawn."""

from pathlib import Path
from typing import Any

from consistentid.cli.options import Loading, Manner
from consistentid.errors import InvalidSettings
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest


def made(
    generator: PortraitGenerator, request: GenerationRequest, manner: Manner, *, loading: Loading
) -> list[Portrait]:
    """The portraits of a request, made in a manner.

    Raises:
        InvalidSettings: two manners were asked for.
    """
    ways = {name: value for name, value in vars(manner).items() if name != "into_face"}
    asked = [f"--{name.replace('_', '-')}" for name, value in ways.items() if value is not None]
    if len(asked) > 1:
        raise InvalidSettings(f"{' and '.join(asked)} cannot be combined; leave one out")
    options: dict[str, Any] = {"progress": loading.shows_progress}
    if manner.explain is not None:
        return _explained(generator, request, manner.explain, options)
    options["batch_size"] = loading.batch_size
    if manner.morph is not None:
        from consistentid.generation.morph import morph

        return morph(generator, request, count=manner.morph, **options)
    if manner.into is not None:
        face = "largest" if manner.into_face is None else manner.into_face
        return _put_into(generator, request, manner.into, {**options, "face": face})
    if manner.best_of is not None:
        return _best(generator, request, manner.best_of, options)
    return generator.generate_batch([request], **options)[0]


def written_sheet(
    generator: PortraitGenerator, request: GenerationRequest, portraits: list[Portrait], path: Path, *, manner: Manner
) -> None:
    """Write one picture of all: the strip of a morph, else photo, regions and portraits."""
    if manner.morph is not None:
        from consistentid.generation.morph import save_strip

        save_strip(portraits, path)
    else:
        from consistentid.generation.sheet import save_sheet

        save_sheet(generator.prepare(request).analysis, portraits, path)


def _put_into(
    generator: PortraitGenerator, request: GenerationRequest, picture: Path, options: dict[str, Any]
) -> list[Portrait]:
    from consistentid.generation.in_place import put_into

    return put_into(generator, request, picture, **options)


def _best(
    generator: PortraitGenerator, request: GenerationRequest, candidates: int, options: dict[str, Any]
) -> list[Portrait]:
    from consistentid.generation.n_best import n_best

    ranked = n_best(generator, request, candidates=candidates, **options)
    for one in ranked:
        said = ", ".join(f"{name} {value:.2f}" for name, value in vars(one.scores).items())
        print(f"seed {one.portrait.settings.seed + one.portrait.settings.index}: {said}")
    return [one.portrait for one in ranked]


def _explained(
    generator: PortraitGenerator, request: GenerationRequest, path: Path, options: dict[str, Any]
) -> list[Portrait]:
    from consistentid.cli.actions import output_paths
    from consistentid.generation.attention_sheet import save_attention_sheet
    from consistentid.generation.explain import explain

    explained = explain(generator, request, **options)
    for one, place in zip(explained, output_paths(path, count=len(explained)), strict=True):
        save_attention_sheet(one, place)
        said = ", ".join(f"{name} {value:+.2f}" for name, value in one.localisation.items())
        print(f"{place}: localisation {said or 'unknown, no face was found'}")
    return [one.portrait for one in explained]
