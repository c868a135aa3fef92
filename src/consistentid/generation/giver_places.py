"""Where whoever gives single regions acts in the pictures of a request."""

from collections.abc import Callable

from consistentid.errors import InvalidSettings, NoFaceFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.donors import Photo
from consistentid.generation.places import Layout
from consistentid.generation.presets import Preset
from consistentid.generation.request import GenerationRequest
from consistentid.generation.tasks import task_named
from consistentid.identity.region_places import Places, places_of
from consistentid.images import PhotoSource


def giver_places(
    request: GenerationRequest,
    *,
    preset: Preset,
    layout: Layout | None,
    own: FaceAnalysis,
    analyse: Callable[[Photo], FaceAnalysis],
) -> Places:
    """Those of the model's framing; of a picture that is repainted, those of its own face, none when it shows none.

    Args:
        request: with the inputs that it came with.
        preset: of the base model.
        layout: of several people, each of whom is framed as the model's portraits are.
        own: the analysis of the request's photo, which is repainted when no picture is given.
        analyse: finds the face in a picture.
    """
    framed = preset.region_places
    if not framed or layout is not None or not request.donors.parts or not task_named(request.task).keeps_proportions:
        return framed
    picture = request.inputs.get("image")
    picture = own if picture is None else picture
    if not isinstance(picture, PhotoSource | FaceAnalysis) or request.inputs.get("padding_mask_crop") is not None:
        return {}  # it cannot be looked at, or only a part of it is seen
    try:
        return places_of(analyse(picture).label_map)
    except (NoFaceFound, InvalidSettings):  # the latter without an analyzer
        return {}
