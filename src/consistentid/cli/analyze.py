"""`consistentid analyze`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from consistentid.cli.options import Loading
from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from consistentid.faces.analysis import FaceAnalysis

_OF_THE_WHOLE = (
    "adapter", "device", "dtype", "batch_size", "base_config", "lora", "textual_inversion",
    "image_encoder",
)  # fmt: skip


def analyze(
    photo: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path(),
    face: int | str | None = None,
    embedding: bool = False,
    attention: bool = False,
    loading: Annotated[Loading | None, Parameter(name="*")] = None,
) -> int:
    """Show what is found in a photo: JSON on stdout and in a file, with a picture of regions and landmarks.

    Args:
        photo: the photo.
        out: folder of <photo>.analysis.json and <photo>.analysis.png.
        face: which face: largest, left, right, centre, left:1 for the second from the left, … Default: the largest;
            with --attention, the one that `generate` takes.
        embedding: write the identity embedding too; it is biometric data.
        attention: also look at the photo with the whole model, and draw in <photo>.attention.png which pixels read
            every region's word and every identity token; the JSON gets their localisation.
        loading: with --attention, which model, and how it runs, as in `generate`; else only --model, which is embedded
            or a folder with a face parser in its folder `parser`.
    """
    from consistentid.faces.overlay import draw_analysis
    from consistentid.generation.portrait import save_png, write_text

    how, seen = loading or Loading(), {}
    if attention:
        analysis, localisation = _attention(photo, how, face=face, sheet=out / f"{photo.stem}.attention.png")
        seen["localisation"] = localisation
    else:
        analysis = _found(photo, how, face="largest" if face is None else face)
    summary = {**_summary(analysis, photo, embedding=embedding), **seen}
    text = json.dumps(summary, indent=2)
    write_text(out / f"{photo.stem}.analysis.json", text + "\n")
    save_png(draw_analysis(analysis), out / f"{photo.stem}.analysis.png")
    print(text)
    return 0


def _found(photo: Path, how: Loading, *, face: int | str) -> "FaceAnalysis":
    """What is found with the face models alone.

    Raises:
        InvalidSettings: an option is for the whole model.
    """
    usual = Loading()
    said = [name for name in _OF_THE_WHOLE if getattr(how, name) != getattr(usual, name)]
    said += how.optimisation.model_fields_set
    if said:
        option = said[0].replace("_", "-")
        raise InvalidSettings(f"--{option} is for the whole model; ask for --attention too, or leave it out")
    from consistentid.faces.analysis import FaceAnalyzer
    from consistentid.generation.loading import EMBEDDED, embedded_folder, quiet_loading

    folder = embedded_folder() if (how.model or EMBEDDED) == EMBEDDED else Path(str(how.model))
    with quiet_loading():
        return FaceAnalyzer.from_pretrained(folder).analyze(photo, face=face)


def _attention(
    photo: Path, how: Loading, *, face: int | str | None, sheet: Path
) -> "tuple[FaceAnalysis, dict[str, float]]":
    """Write the sheet; what is found, and how much more every region's word was read inside its region than outside."""
    from consistentid.cli.actions import generator_of
    from consistentid.generation.attention_sheet import save_attention_sheet
    from consistentid.generation.explain import explain_photo

    generator = generator_of(replace(how, cache=False))  # looking at a photo leaves nothing of it behind
    analysis = generator.analysed(photo, face=face).analysis
    found = explain_photo(generator, analysis)
    save_attention_sheet(found, sheet)
    return analysis, {name: round(value, 4) for name, value in found.localisation.items()}


def _summary(analysis: "FaceAnalysis", photo: Path, *, embedding: bool) -> dict[str, Any]:
    """What was found, in plain numbers: pixels, and each region's share of the photo."""
    masks = analysis.region_masks
    landmarks = () if analysis.landmarks is None else analysis.landmarks
    summary: dict[str, Any] = {
        "photo": str(photo),
        "size": [analysis.photo.shape[1], analysis.photo.shape[0]],
        "faces_found": analysis.faces_found,
        "box": [round(float(value), 1) for value in analysis.box],
        "landmarks": [[round(float(value), 1) for value in point] for point in landmarks],
        "regions": {name: round(float(mask.mean()), 5) for name, mask in masks.items()},
        "description": analysis.description,
        "identity_dim": int(analysis.identity_embedding.size),
    }
    if embedding:
        summary["identity_embedding"] = [float(value) for value in analysis.identity_embedding]
    return summary
