"""`consistentid analyze`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from consistentid.faces.analysis import FaceAnalysis


def analyze(
    photo: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path(),
    face: int | str = "largest",
    model: str = "embedded",
    embedding: bool = False,
    attention: bool = False,
) -> int:
    """Show what is found in a photo: JSON on stdout and in a file, with a picture of regions and landmarks.

    Args:
        photo: the photo.
        out: folder of <photo>.analysis.json and <photo>.analysis.png.
        face: which face: largest, left, right, centre, left:1 for the second from the left, …
        model: embedded, or a folder with a face parser in its folder `parser`.
        embedding: write the identity embedding too; it is biometric data.
        attention: also look at the photo with the whole model, and draw in <photo>.attention.png which pixels read
            every region's word and every identity token; the JSON gets their localisation.
    """
    from consistentid.faces.analysis import FaceAnalyzer
    from consistentid.faces.overlay import draw_analysis
    from consistentid.generation.loading import EMBEDDED, embedded_folder, quiet_loading
    from consistentid.generation.portrait import save_png, write_text

    folder = embedded_folder() if model == EMBEDDED else Path(model)
    with quiet_loading():
        analysis = FaceAnalyzer.from_pretrained(folder).analyze(photo, face=face)
    summary = _summary(analysis, photo, embedding=embedding)
    if attention:
        summary["localisation"] = _attention(analysis, model, out / f"{photo.stem}.attention.png")
    text = json.dumps(summary, indent=2)
    write_text(out / f"{photo.stem}.analysis.json", text + "\n")
    save_png(draw_analysis(analysis), out / f"{photo.stem}.analysis.png")
    print(text)
    return 0


def _attention(analysis: "FaceAnalysis", model: str, sheet: Path) -> dict[str, float]:
    """Write the sheet; how much more every region's word was read inside its region than outside."""
    from consistentid.generation.attention_sheet import save_attention_sheet
    from consistentid.generation.explain import explain_photo
    from consistentid.generation.generator import PortraitGenerator

    found = explain_photo(PortraitGenerator.from_pretrained(model, offline=True, cache=False), analysis)
    save_attention_sheet(found, sheet)
    return {name: round(value, 4) for name, value in found.localisation.items()}


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
