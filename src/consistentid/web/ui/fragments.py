"""Small pieces of HTML: sentences, progress, pictures that never become files."""

import base64
from collections.abc import Collection
from html import escape
from io import BytesIO

from PIL import Image

from consistentid.evaluation.likeness import Likeness, draw_likeness
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.overlay import draw_analysis, draw_faces
from consistentid.faces.regions import REGION_NAMES
from consistentid.web.jobs import JobState, Progress

_SIDE = 640  # px, longer side of a picture
EMPTY = (
    '<div class="empty">No portraits yet. Give a photo, say what the portrait should show, and press “Make portraits”.'
    "</div>"
)


def notice(sentence: str, *, wrong: bool = False) -> str:
    """A sentence that screen readers say aloud; at once when something is wrong."""
    if not sentence:
        return ""
    role, kind = ("alert", "notice wrong") if wrong else ("status", "notice")
    return f'<div role="{role}" class="{kind}">{escape(sentence)}</div>'


def progress(now: Progress, preview: bytes | None) -> str:
    """How far a job is, with the latest preview."""
    job = now.job
    if job.state is JobState.QUEUED:
        text = f"Waiting; {now.position} before yours." if now.position else "Starts now."
    else:
        text = f"Step {job.step} of {job.steps}." if job.steps else "Looking at the photo."
    value = f'value="{job.step}" max="{job.steps}"' if job.steps else ""
    picture = "" if preview is None else _img(preview, "image/jpeg", alt="Preview of the portrait that is being made")
    return (
        f'<div class="stage"><div role="status">{text}</div>'
        f'<progress {value} aria-label="Progress of the portraits"></progress>{picture}</div>'
    )


def found_notice(visible: Collection[str], *, faces: int, chosen: int) -> str:
    """How many faces were found, which one is chosen, and which regions it hides."""
    hidden = [name for name in REGION_NAMES if name not in visible]
    sentence = "A face was found." if faces == 1 else f"{faces} faces were found, and number {chosen + 1} is chosen."
    return notice(sentence + (f" Not visible, so left to the words: {', '.join(hidden)}." if hidden else ""))


def found(analysis: FaceAnalysis, boxes: list[tuple[float, float, float, float]]) -> str:
    """What was found in a photo, drawn on it."""
    drawn = draw_analysis(analysis)
    if len(boxes) > 1:
        drawn = draw_faces(drawn, boxes, chosen=analysis.box)
    regions = ", ".join(analysis.region_masks) or "none"
    return f'<div class="found">{_picture(drawn, alt=f"The photo with the regions that were found: {regions}")}</div>'


def compared(likeness: Likeness) -> str:
    """Similarity of every region, as numbers and on the face."""
    rows = [("Overall identity", likeness.identity)]
    rows += [(name.capitalize(), value) for name, value in likeness.regions.regions.items()]
    cells = "".join(
        f'<tr><th scope="row">{name}</th><td>{value:.2f}</td>'
        f'<td><meter value="{max(0.0, value):.2f}" aria-label="{name}"></meter></td></tr>'
        for name, value in rows
    )
    missing = ", ".join(likeness.regions.missing)
    hidden = f"<p>Not compared, because one of the two hides it: {missing}.</p>" if missing else ""
    alt = "The portrait with the similarity of each region written on it; the table has the same numbers"
    return (
        f'<div class="likeness">{_picture(draw_likeness(likeness), alt=alt)}<div>'
        f"<table><caption>Similarity to the photo (1: the same)</caption>{cells}</table>{hidden}</div></div>"
    )


def _picture(image: Image.Image, *, alt: str) -> str:
    image = image.copy()
    image.thumbnail((_SIDE, _SIDE))
    content = BytesIO()
    image.save(content, "JPEG", quality=88)
    return _img(content.getvalue(), "image/jpeg", alt=alt)


def _img(content: bytes, kind: str, *, alt: str) -> str:
    return f'<img src="data:{kind};base64,{base64.b64encode(content).decode()}" alt="{escape(alt)}">'
