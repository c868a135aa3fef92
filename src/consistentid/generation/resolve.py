"""Open settings -> complete settings, by the model's preset and the adapter's configuration."""

from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.controlnets import check_controlnets
from consistentid.generation.masks import size_like
from consistentid.generation.places import Layout, automatic_size, complete_places, layout_of
from consistentid.generation.presets import Preset
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.tasks import task_named
from consistentid.identity.compatibility import check_regions
from consistentid.identity.config import AdapterConfig
from consistentid.identity.control import REWORDED_WEIGHT, check_parts
from consistentid.images import PhotoSource
from consistentid.prompting.style import style_named


def resolved_request(
    request: GenerationRequest, *, preset: Preset, config: AdapterConfig, pipeline: Any
) -> GenerationSettings:
    """A request's settings as in `resolved`, its size fitted to the picture where the task keeps proportions.

    Raises:
        InvalidSettings: the request does not fit the task or the model.
    """
    task = task_named(request.task)
    task.check(request.task, request.inputs, components=request.components)
    if task.components:
        pictures = request.inputs["control_image" if "control_image" in task.required else "image"]
        networks = request.components["controlnet"]
        check_controlnets(networks, pictures=pictures, num_images=request.settings.num_images, unet=pipeline.unet)
    settings = resolved(request.settings, preset=preset, config=config, pipeline=pipeline)
    run = task.steps_run(settings.steps or 0, request.inputs, pipeline=pipeline)
    if run < 1:
        raise InvalidSettings(f"of {settings.steps} steps, strength leaves none to run; raise one of them")
    settings = settings.model_copy(update={"merge_step": _merge_step(settings.merge_step, steps=run, config=config)})
    picture = request.inputs.get("image", request.photo)
    if task.keeps_proportions and request.settings.size is None and isinstance(picture, FaceAnalysis | PhotoSource):
        shown = picture.image if isinstance(picture, FaceAnalysis) else picture
        size = size_like(shown, like=settings.size or (8, 8), multiple=pipeline.vae_scale_factor)
        settings = settings.model_copy(update={"size": size})
    settings = _with_places(settings, request, factor=pipeline.vae_scale_factor)
    if request.donors.blend is not None and settings.blend is None:
        settings = settings.model_copy(update={"blend": 0.5})
    distilled = pipeline.unet.config.time_cond_proj_dim is not None
    if distilled and not task.tells_guidance and (settings.guidance or 0) > 1:
        raise InvalidSettings(
            f"task {request.task} cannot hand its guidance to a base model that reads it as an input; choose guidance 1"
        )
    if request.latents is not None and len(request.latents) != settings.num_images:
        raise InvalidSettings(f"{len(request.latents)} latents were given for {settings.num_images} images")
    return settings


def resolved(
    settings: GenerationSettings, *, preset: Preset, config: AdapterConfig, pipeline: Any
) -> GenerationSettings:
    """The settings with nothing left open but the merge step, which depends on the task, and the caption and the
    regions, which depend on the photo.

    Raises:
        InvalidSettings: a value does not fit the model.
    """
    changes = {
        "steps": settings.steps or preset.steps,
        "scheduler": settings.scheduler or preset.scheduler or type(pipeline.scheduler).__name__,
        "guidance": preset.guidance if settings.guidance is None else settings.guidance,
        "identity_scale": config.identity_scale if settings.identity_scale is None else settings.identity_scale,
        "face": config.quirks.face if settings.face is None else settings.face,
        "size": _size(settings.size or preset.size, pipeline=pipeline),
    }
    check_regions(settings.regions)
    return with_control(settings).model_copy(update=changes)


def with_control(settings: GenerationSettings) -> GenerationSettings:
    """The settings with a weight for every region whose words are the user's.

    Raises:
        InvalidSettings: a part is unknown.
    """
    check_parts({**settings.weights, **settings.starts, **settings.ends})
    check_parts(settings.words, known=REGION_NAMES)
    return settings.model_copy(
        update={"weights": {**dict.fromkeys(settings.words, REWORDED_WEIGHT), **settings.weights}}
    )


def with_caption(
    settings: GenerationSettings, analysis: FaceAnalysis, *, task: str, config: AdapterConfig
) -> GenerationSettings:
    """The settings with the fixed caption of inpainting, where that is another and nobody else describes the face."""
    template = style_named(config.quirks.prompt_style).inpaint_template
    described = any(words is not None for words in (settings.caption, config.caption, analysis.description))
    if template is None or described or not task_named(task).inpaints:
        return settings
    return settings.model_copy(update={"caption": template})


def layout_for(settings: GenerationSettings, *, preset: Preset, pipeline: Any) -> Layout | None:
    """Where everybody is, for settings whose places are complete; None when there are none.

    Raises:
        InvalidSettings: as in `layout_of`.
    """
    if not settings.places:
        return None
    factor = pipeline.vae_scale_factor
    canvas, native = (
        (height // factor, width // factor)
        for width, height in (settings.size or (factor, factor), native_size(pipeline))
    )
    smallest = round(preset.smallest_place * min(native))
    return layout_of(settings.places, grid=canvas, native=native, smallest=smallest, pixels=factor)


def _with_places(settings: GenerationSettings, request: GenerationRequest, *, factor: int) -> GenerationSettings:
    """The settings with a place for everybody, on a canvas for all of them unless its size was given."""
    people = 1 + len(request.donors.beside)
    if settings.clauses and len(settings.clauses) != people:
        raise InvalidSettings(f"clauses given: {len(settings.clauses)}, people: {people}; give one for each")
    if people == 1 and not settings.places:
        return settings
    if people > 1 and settings.caption is not None:
        raise InvalidSettings(
            "a caption describes one face; with several people, say in clauses what is special of each"
        )
    width, height = settings.size or (factor, factor)
    if request.settings.size is None and not task_named(request.task).keeps_proportions:
        width, height = automatic_size(people, (width, height), multiple=factor)
    return settings.model_copy(
        update={"size": (width, height), "places": complete_places(settings.places, people=people)}
    )


def _merge_step(given: int | float | None, *, steps: int, config: AdapterConfig) -> int:
    if given is None:
        return config.merge_step(steps)
    if isinstance(given, float):
        return round(given * steps) if given > 0 else -1
    return given


def _size(given: tuple[int, int] | None, *, pipeline: Any) -> tuple[int, int]:
    factor = pipeline.vae_scale_factor
    if given is None:
        return native_size(pipeline)
    if any(side % factor for side in given):
        raise InvalidSettings(f"size {given[0]} x {given[1]} must be a multiple of {factor} on both sides")
    return given


def native_size(pipeline: Any) -> tuple[int, int]:
    """Width and height in pixels of the pictures that the base model was trained on."""
    side, factor = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
    height, width = (side, side) if isinstance(side, int) else side
    return width * factor, height * factor
