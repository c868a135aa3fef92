"""People x prompts x seeds -> portraits -> numbers -> table; what was done is not done again."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from consistentid.errors import InvalidData
from consistentid.evaluation.config import EvaluationConfig
from consistentid.evaluation.folder import measured_pictures, pictures_of, read_folder
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import OURS, Wanted
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.pictures import Measures, People, Picture, with_numbers
from consistentid.evaluation.plan import Plan, Shot, plan
from consistentid.evaluation.protocols import Protocol, load_protocol
from consistentid.evaluation.scoring import Group, Score, scores_of
from consistentid.evaluation.subjects import Subject, find_subjects, spread
from consistentid.evaluation.worker import DrawnBatch, Worker
from consistentid.generation.settings import GenerationSettings

logger = logging.getLogger(__name__)

Batch = tuple[str, Sequence[Wanted]]  # the maker, and what it shall draw
Work = Callable[[Sequence[Batch]], None]

REAL = "real photos"
REFERENCE = "the reference photo"
STRANGER = "another person's photo"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that a report shows.

    Attributes:
        config: what was asked.
        protocol: likewise.
        subjects: who was drawn.
        people: what was measured on their photos.
        blocks: portraits of every block, and real photos.
        scores: the table.
        failures: how many portraits are missing or could not be measured, by reason.
        excluded: people and files that were left out, and why.
        seconds: per portrait and method, from preparing to decoding.
        peak_bytes: most memory that drawing used.
    """

    config: EvaluationConfig
    protocol: Protocol
    subjects: Sequence[Subject]
    people: People
    blocks: Mapping[str, Sequence[Picture]]
    scores: Sequence[Score]
    failures: Mapping[str, int]
    excluded: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def title(self) -> str:
        """What was evaluated."""
        return self.config.model if self.config.adapter is None else f"{self.config.model} with {self.config.adapter}"

    @property
    def recognisers(self) -> Sequence[str]:
        """Judges of identity."""
        return self.config.recognisers

    @property
    def portraits(self) -> dict[str, Sequence[Picture]]:
        """The blocks that hold portraits, not photos."""
        return {name: pictures for name, pictures in self.blocks.items() if name != REAL}

    @property
    def main_method(self) -> str:
        """The method whose worst portraits are shown: the first of the first block."""
        return next((pictures[0].shot.method for pictures in self.portraits.values() if pictures), "")


def evaluate(config: EvaluationConfig, worker: Worker, *, work: Work | None = None) -> Evaluation:
    """Draw, measure and score.

    Args:
        config: what is asked.
        worker: does it.
        work: does the batches elsewhere beforehand (on Ray); their results are files that the worker finds.

    Raises:
        InvalidData: no photos, no people, or no two of them can be measured.
    """
    protocol = protocol_of(config)
    subjects, people, excluded = usable_subjects(config, protocol, worker)
    layout = plan(
        protocol, subjects, batch_size=config.batch_size, baselines=tuple(config.baselines), only=config.blocks
    )
    by_name = {subject.name: subject for subject in subjects}
    batches = [_batch(batch, config, protocol, by_name) for batch in layout.batches]
    if work is not None:
        work(batches)
    drawn = [worker.draw_and_measure(*batch) for batch in tqdm(batches, desc="batches of portraits", mininterval=5)]
    made = _numbered(_pictures(layout, drawn, people, worker), subjects, people, protocol, worker)
    blocks = {name: [made[one] for shot in shots for one in shot.of_each] for name, shots in layout.blocks.items()}
    evaluation = _scored(config, protocol, subjects, people, blocks, worker)
    peak = max((one.peak_bytes for one in drawn), default=0)
    return replace(evaluation, excluded=excluded, seconds=_seconds(layout, drawn), peak_bytes=peak)


def evaluate_folder(config: EvaluationConfig, worker: Worker, images: Path) -> Evaluation:
    """Score pictures that are there already; see `folder` for their names.

    Raises:
        InvalidData: no photos, no people, or no picture whose name is understood.
    """
    protocol = protocol_of(config)
    subjects, people, excluded = usable_subjects(config, protocol, worker)
    found, refused = read_folder(images, protocol, [subject.name for subject in subjects])
    pictures = measured_pictures(found, people, worker)
    made = _numbered(pictures, subjects, people, protocol, worker)
    evaluation = _scored(config, protocol, subjects, people, {"images": list(made.values())}, worker)
    return replace(evaluation, excluded={**excluded, **refused})


def protocol_of(config: EvaluationConfig) -> Protocol:
    """The configured protocol with the configured methods."""
    protocol = load_protocol(config.protocol)
    return protocol if config.methods is None else protocol.model_copy(update={"methods": config.methods})


def _scored(
    config: EvaluationConfig,
    protocol: Protocol,
    subjects: Sequence[Subject],
    people: People,
    portraits: Mapping[str, Sequence[Picture]],
    worker: Worker,
) -> Evaluation:
    blocks = {**portraits, REAL: _real(subjects, people, protocol, worker)}
    every = dict.fromkeys(picture for pictures in portraits.values() for picture in pictures)
    return Evaluation(
        config=config,
        protocol=protocol,
        subjects=subjects,
        people=people,
        blocks=blocks,
        scores=_table(blocks, protocol, people, worker),
        failures=_failures(every),
    )


def usable_subjects(
    config: EvaluationConfig, protocol: Protocol, worker: Worker
) -> tuple[list[Subject], People, dict[str, str]]:
    """People whose photos show a face, what was measured on them, and why the others cannot be used."""
    if config.photos is None:
        raise InvalidData("say whose portraits to evaluate: photos in the configuration, or --photos FOLDER")
    found = find_subjects(config.photos.resolve(), held_out=protocol.held_out)
    wanted = spread(found, config.subjects)
    usable, excluded = [], {}
    gallery, references = {}, {}
    for subject in tqdm(wanted, desc="people", mininterval=5):
        measured = {path: worker.measure(path) for path in {subject.reference, subject.gallery}}
        reasons = [f"{path.name}: {one.failure}" for path, one in measured.items() if one.failure is not None]
        if reasons:
            excluded[subject.name] = "; ".join(sorted(reasons))
            continue
        usable.append(subject)
        gallery[subject.name], references[subject.name] = measured[subject.gallery], measured[subject.reference]
    if not usable:
        raise InvalidData(f"no photo in {config.photos} shows a face that can be measured")
    if len(usable) < protocol.subjects:
        logger.warning("the protocol asks for %d people, %d can be used", protocol.subjects, len(usable))
    genders = {subject.name: subject.gender for subject in usable if subject.gender is not None}
    return usable, People(gallery, references, genders), excluded


def _batch(
    batch: Sequence[Shot], config: EvaluationConfig, protocol: Protocol, subjects: Mapping[str, Subject]
) -> Batch:
    method = batch[0].method
    maker = method if method in config.baselines else OURS
    settings = GenerationSettings.of(**{**config.settings, **protocol.all_methods().get(method, {})})
    return maker, [
        Wanted(
            subjects[shot.subject].reference,
            protocol.prompts[shot.prompt].for_gender(subjects[shot.subject].gender),
            shot.seed,
            settings,
            (subjects[shot.beside].reference,) if shot.beside else (),
        )
        for shot in batch
    ]


def _pictures(layout: Plan, drawn: Sequence[DrawnBatch], people: People, worker: Worker) -> Iterable[Picture]:
    for batch, result in zip(layout.batches, drawn, strict=True):
        for shot, name, failure in zip(batch, result.pictures, result.failures, strict=True):
            if name is None:
                yield from (Picture(one, None, Measured(failure=failure)) for one in shot.of_each)
            else:
                yield from pictures_of(shot, worker.cache / name, people, worker)


def _numbered(
    pictures: Iterable[Picture], subjects: Sequence[Subject], people: People, protocol: Protocol, worker: Worker
) -> dict[Shot, Picture]:
    """Numbers of pictures; prompts are compared within a method."""
    judge = worker.judge
    measures = Measures(
        recognisers=[each.name for each in judge.recognisers],
        embedders=[each.name for each in judge.images],
        texts=_texts(protocol, subjects, judge),
    )
    made = with_numbers(list(pictures), people, protocol.prompts, measures=measures)
    return {picture.shot: picture for picture in made}


def _texts(protocol: Protocol, subjects: Sequence[Subject], judge: Judge) -> dict[tuple[str, str], np.ndarray]:
    genders = {subject.gender for subject in subjects}
    words = sorted({prompt.for_gender(gender) for prompt in protocol.prompts.values() for gender in genders})
    return {
        (embedder.name, text): row
        for embedder in judge.images
        if hasattr(embedder, "embed_texts")
        for text, row in zip(words, embedder.embed_texts(words), strict=True)
    }


def _real(subjects: Sequence[Subject], people: People, protocol: Protocol, worker: Worker) -> list[Picture]:
    """Real photos in the place of portraits: what nobody can exceed, and what is reached by nothing."""
    names = [subject.name for subject in subjects if subject.other is not None]
    if len(names) < 2:
        return []
    photo_of = {subject.name: subject.reference for subject in subjects}
    shown = [(REFERENCE, name, name) for name in names]
    shown += [(STRANGER, name, names[k - 1]) for k, name in enumerate(names)]
    pictures = [
        Picture(Shot(method, "", 0, name), photo_of[shows], people.references[shows]) for method, name, shows in shown
    ]
    numbered = _numbered(pictures, subjects, people, protocol, worker)
    return list(numbered.values())


def _table(blocks: Mapping[str, Sequence[Picture]], protocol: Protocol, people: People, worker: Worker) -> list[Score]:
    recognisers = [each.name for each in worker.judge.recognisers]
    scores = []
    for block, pictures in blocks.items():
        for method in dict.fromkeys(picture.shot.method for picture in pictures):
            own = [picture for picture in pictures if picture.shot.method == method]
            scores += scores_of(Group(block, method, "all", own), people, recognisers=recognisers, whole=True)
            groups = dict.fromkeys(protocol.prompts[one.shot.prompt].group for one in own if one.shot.prompt)
            for group in groups if len(groups) > 1 else ():
                some = [one for one in own if protocol.prompts[one.shot.prompt].group == group]
                scores += scores_of(Group(block, method, group, some), people, recognisers=recognisers, whole=False)
    return scores


def _failures(pictures: Iterable[Picture]) -> dict[str, int]:
    return dict(sorted(Counter(one.measured.failure for one in pictures if one.measured.failure is not None).items()))


def _seconds(layout: Plan, drawn: Sequence[DrawnBatch]) -> dict[str, float]:
    """Median over batches of the seconds per portrait; the first ones also prepare photos."""
    each: dict[str, list[float]] = {}
    for batch, result in zip(layout.batches, drawn, strict=True):
        each.setdefault(batch[0].method, []).append(result.seconds / len(batch))
    return {method: float(np.median(seconds)) for method, seconds in each.items()}
