"""The best of many candidates, of which hopeless ones are given up early."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from consistentid.errors import InvalidSettings, NoFaceFound
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.generation.callbacks import StepReport
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.preview import decoded
from consistentid.generation.request import GenerationRequest, PreparedRequest, Shot, batches, check_one_person
from consistentid.generation.scores import NO_FACE, PortraitScores, likeness, score
from consistentid.identity.weighted_prompt import text_of

_BEHIND = 0.1  # identity that a preview may lack against the best one, and still win in the end


@dataclass(frozen=True)
class Ranked:
    """A portrait and its scores."""

    portrait: Portrait
    scores: PortraitScores


class _GivenUp(Exception):
    """Ends a run whose candidates are all hopeless."""


def n_best(
    generator: PortraitGenerator,
    request: GenerationRequest,
    *,
    candidates: int,
    look_at: float | None = 0.4,
    batch_size: int | None = None,
    **options: Any,
) -> list[Ranked]:
    """The best `num_images` of a number of candidates, best first.

    Candidate k is drawn with seed + k, and its record says so. Who they should be like is who the identity tokens are
    of: a blend, several photos, or whoever gives the overall identity.

    Args:
        generator: makes and, with its analyzer, measures them.
        request: its `num_images` are kept.
        candidates: how many are drawn.
        look_at: share of the steps after which a denoising run is given up when the previews of its candidates show no
            face, or faces far less like who was asked for than the best preview so far. None: every run is finished.
            With a `batch_size` of 1, each candidate is given up by itself.
        batch_size: images in one denoising run.
        **options: as in `Renderer.portraits`, without `callback` and `output_type`.

    Raises:
        InvalidSettings: fewer candidates than portraits are asked for, several people, or nothing can measure them.
        NoFaceFound: no candidate shows a face.
        ConsistentIDError: as in `PortraitGenerator.generate`.
    """
    check_one_person(request, "the best of many")
    keep, analyzer = request.settings.num_images, generator.analyzer
    if candidates < keep:
        raise InvalidSettings(f"the best {keep} of {candidates} cannot be chosen; draw more candidates")
    if analyzer is None or request.latents is not None:
        raise InvalidSettings("the best of many needs a face analyzer to measure them, and draws its noise from seeds")
    settings = request.settings.model_copy(update={"num_images": candidates})
    prepared = generator.prepare(replace(request, settings=settings))
    prompt = text_of(request.prompt, weighted=settings.prompt_weighting)
    ranked: list[Ranked] = []
    watch = _Watch(generator, prepared, analyzer, spare=candidates - keep)
    for run in batches([Shot(prepared, k) for k in range(candidates)], batch_size=batch_size or generator.batch_size):
        callback = None if look_at is None else watch.callback(look_at, count=len(run))
        try:
            made = generator.renderer.portraits(run, batch_size=len(run), callback=callback, **options)
        except _GivenUp:
            continue
        for portrait in (one for one in made if not one.withheld):
            scores = score(portrait.image, identity=watch.identity, prompt=prompt, analyzer=analyzer)
            ranked.append(Ranked(portrait, scores))
    if len(ranked) < keep:
        raise InvalidSettings(
            f"{len(ranked)} of {candidates} candidates are left, the safety checker withheld the others; draw more"
        )
    if all(one.scores == NO_FACE for one in ranked):
        raise NoFaceFound(f"none of {candidates} candidates shows a face; choose another prompt or seed")
    return sorted(ranked, key=lambda one: one.scores.total, reverse=True)[:keep]


class _Watch:
    """Looks at previews, and ends runs without hope while so many candidates may be missed."""

    def __init__(
        self, generator: PortraitGenerator, prepared: PreparedRequest, analyzer: FaceAnalyzer, *, spare: int
    ) -> None:
        self.pipeline = generator.pipeline
        self.identity = prepared.embeddings.conditioning.identity[0].float().cpu().numpy()
        self.analyzer = analyzer
        self.spare = spare
        self.best = 0.0

    def callback(self, at: float, *, count: int) -> Callable[[StepReport], None]:
        """For one run of so many candidates."""
        looked = False

        def look(step: StepReport) -> None:
            nonlocal looked
            if looked or step.step < at * step.steps:
                return
            looked = True
            pictures = decoded(self.pipeline, step.predicted())
            found = max(likeness(picture, self.identity, detector=self.analyzer.detector) for picture in pictures)
            if count <= self.spare and (found == 0 or found < self.best - _BEHIND):
                self.spare -= count
                raise _GivenUp
            self.best = max(self.best, found)

        return look
