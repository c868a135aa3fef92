"""Whole evaluations: killed and resumed, from files, compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.conftest import BlurredCopies

from consistentid.errors import InvalidData
from consistentid.evaluation.compare import compare, comparison_table, people_differ
from consistentid.evaluation.config import EvaluationConfig
from consistentid.evaluation.folder import read_folder
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import OURS
from consistentid.evaluation.protocols import load_protocol
from consistentid.evaluation.results import load_pictures, save
from consistentid.evaluation.run import REFERENCE, Evaluation, evaluate, evaluate_folder
from consistentid.evaluation.worker import Worker


def config_of(people: Path, protocol: Path, out: Path) -> EvaluationConfig:
    return EvaluationConfig(photos=people, protocol=str(protocol), out=out, batch_size=2, recognisers=("dlib",))


def worker_of(config: EvaluationConfig, judge: Judge, maker: BlurredCopies, *, known: Path | None = None) -> Worker:
    """Measurements that another evaluation has made already are copied: they take the time here."""
    cache = config.out / "cache"
    if known is not None and not cache.exists():
        shutil.copytree(known / "cache" / "measured", cache / "measured")
    return Worker({OURS: lambda: maker}, judge, cache)


@pytest.fixture(scope="module")
def finished(people: Path, protocol: Path, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    config = config_of(people, protocol, tmp_path_factory.mktemp("finished"))
    worker = worker_of(config, judge, BlurredCopies())
    evaluation = evaluate(config, worker)
    save(evaluation, worker, config.out)
    return evaluation


def test_the_table_of_a_killed_run_is_the_same_to_the_last_digit(
    finished: Evaluation, people: Path, protocol: Path, judge: Judge, tmp_path: Path
) -> None:
    config = config_of(people, protocol, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, worker_of(config, judge, BlurredCopies(stop_after=3), known=finished.config.out))
    kept = sorted((tmp_path / "cache" / "portraits").glob("*.json"))
    assert len(kept) == 3
    kept[0].unlink()  # as if it was killed between the pictures and the record
    again = BlurredCopies()
    worker = worker_of(config, judge, again)
    evaluation = evaluate(config, worker)
    total = len(list((tmp_path / "cache" / "portraits").glob("*.json")))
    assert again.batches == total - 2  # nothing that was whole is drawn again
    save(evaluation, worker, tmp_path)
    for name in ("scores.json", "scores.csv", "pictures.json", "pictures.csv"):
        assert (tmp_path / name).read_bytes() == (finished.config.out / name).read_bytes()


def test_what_is_missing_is_counted_and_shown(finished: Evaluation) -> None:
    assert list(finished.excluded) == ["nobody"]
    assert finished.failures["the last one is never drawn"] > 0
    text = (finished.config.out / "report.md").read_text()
    assert "Fewer people than the protocol asks for: 4 of 5" in text
    assert "Left out: nobody (1.png: no face)" in text
    found = next(s for s in finished.scores if (s.block, s.method, s.metric) == ("identity", "full", "face found"))
    assert (found.value, found.pictures) == (0.5, 4)
    similarity = next(s for s in finished.scores if (s.method, s.metric) == ("full", "similarity dlib"))
    assert similarity.missing == 2


def test_real_photos_bound_the_scores(finished: Evaluation) -> None:
    rank = {s.method: s.value for s in finished.scores if (s.block, s.metric) == ("real photos", "rank-1 dlib")}
    assert rank[REFERENCE] == 1
    own, other = (
        next(s.value for s in finished.scores if (s.method, s.metric) == (method, "fgis"))
        for method in (REFERENCE, "another person's photo")
    )
    assert own > other


def test_the_manifest_names_what_the_numbers_depend_on(finished: Evaluation) -> None:
    manifest = json.loads((finished.config.out / "manifest.json").read_text())
    assert manifest["weights"] == {OURS: "blurred copies"}
    assert len(manifest["photos"]) == 4
    assert len(manifest["code"]["drawing"]) == 64
    assert manifest["protocol"]["prompts"]["plain"]["text"] == "a portrait of a {person}"


def test_the_page_needs_nothing_else(finished: Evaluation) -> None:
    page = (finished.config.out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<svg") >= 2
    assert page.count("data:image/jpeg;base64,") > 10


def test_an_evaluation_is_no_better_than_itself(finished: Evaluation) -> None:
    rows = load_pictures(finished.config.out)
    assert all(one.verdict == "no difference told" and one.paired.difference == 0 for one in compare(rows, rows))


def test_a_worse_evaluation_is_told(finished: Evaluation) -> None:
    rows = [row for row in load_pictures(finished.config.out) if row.method == "full" and row.block == "identity"]
    many = [row.model_copy(update={"subject": f"{row.subject} {k}", "failure": None}) for row in rows for k in range(6)]
    first = [row.model_copy(update={"numbers": {"fgis": 0.8, "copied": 0.1}}) for row in many]
    second = [row.model_copy(update={"numbers": {"fgis": 0.7, "copied": 0.2}}) for row in many]
    verdicts = {one.metric: one.verdict for one in compare(first, second)}
    assert verdicts == {"fgis": "worse", "copied": "higher"}
    assert "| worse |" in comparison_table(compare(first, second))
    assert people_differ(first, second) is None
    assert "1 are in both" in str(people_differ(first, first[:1]))
    with pytest.raises(InvalidData, match="no portrait"):
        compare(first, rows[:0])


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no finished evaluation"):
        load_pictures(tmp_path)


def test_pictures_of_a_folder_are_scored(
    finished: Evaluation, people: Path, protocol: Path, judge: Judge, tmp_path: Path
) -> None:
    config = config_of(people, protocol, tmp_path / "out")
    names = ("ours/official-man/plain.png", "ours/official-man/plain_1.png", "ours/synthetic-woman/smiling.png")
    for name in (*names, "ours/official-man/unknown.png", "ours/stranger/plain.png", "plain.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(people / "official-man" / "2.png").save(path)
    worker = worker_of(config, judge, BlurredCopies(), known=finished.config.out)
    evaluation = evaluate_folder(config, worker, tmp_path / "images")
    shots = [picture.shot for picture in evaluation.portraits["images"]]
    assert [(shot.subject, shot.prompt, shot.index) for shot in shots] == [
        ("official-man", "plain", 0), ("official-man", "plain", 1), ("synthetic-woman", "smiling", 0),
    ]  # fmt: skip
    assert evaluation.excluded["ours/official-man/unknown.png"] == "unknown is no prompt of the protocol"
    assert "none of the people" in evaluation.excluded["ours/stranger/plain.png"]
    hits = {p.shot.subject: p.numbers["rank-1 dlib"] for p in evaluation.portraits["images"]}
    assert hits == {"official-man": 1, "synthetic-woman": 0}


def test_each_face_of_a_pair_goes_to_its_person(
    finished: Evaluation, people: Path, judge: Judge, tmp_path: Path
) -> None:
    config = config_of(people, Path("pairs"), tmp_path / "out").model_copy(update={"protocol": "pairs"})
    path = tmp_path / "images" / "ours" / "official-man+synthetic-woman" / "pairs-01.png"
    path.parent.mkdir(parents=True)
    photos = [np.asarray(Image.open(people / name / "1.png").resize((200, 240))) for name in
              ("synthetic-woman", "official-man")]  # fmt: skip
    Image.fromarray(np.concatenate(photos, axis=1)).save(path)
    worker = worker_of(config, judge, BlurredCopies(), known=finished.config.out)
    evaluation = evaluate_folder(config, worker, tmp_path / "images")
    assert {p.shot.subject: p.numbers["rank-1 dlib"] for p in evaluation.portraits["images"]} == {
        "official-man": 1,
        "synthetic-woman": 1,
    }
    assert all(abs(p.numbers["leak dlib"]) < 0.02 for p in evaluation.portraits["images"]), "each face is a real one"


def test_pairs_are_drawn(finished: Evaluation, people: Path, protocol: Path, judge: Judge, tmp_path: Path) -> None:
    text = protocol.read_text().replace("subjects: 5", "subjects: 2\npeople_per_picture: 2", 1)
    (tmp_path / "pairs.yaml").write_text(text.replace("[full, base]", "[full]"))
    config = config_of(people, tmp_path / "pairs.yaml", tmp_path).model_copy(update={"blocks": ("identity",)})
    evaluation = evaluate(config, worker_of(config, judge, BlurredCopies(), known=finished.config.out))
    found = evaluation.portraits["identity"]
    pairs = ("official-man", "official-man-mirrored"), ("synthetic-woman", "synthetic-woman-mirrored")
    assert [(one.shot.subject, one.shot.beside) for one in found] == [
        both for first, second in pairs for both in ((first, second), (second, first))
    ]
    assert all(one.path == found[0].path for one in found[:2])
    assert all(abs(one.numbers["leak dlib"]) < 0.05 for one in found[:2])
    assert [one.measured.failure for one in found[2:]] == ["the last one is never drawn"] * 2


def test_a_folder_of_other_names_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InvalidData, match=r"METHOD/PERSON/PROMPT\.png"):
        read_folder(tmp_path, load_protocol("paper"), ["ada"])


def test_no_picture_takes_the_place_of_another(tmp_path: Path) -> None:
    prompt = next(iter(load_protocol("paper").prompts))
    folder = tmp_path / "ours" / "ada"
    folder.mkdir(parents=True)
    for name in (f"{prompt}.png", f"{prompt}_0.png", f"{prompt}_1.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    found, refused = read_folder(tmp_path, load_protocol("paper"), ["ada"])
    assert [one.index for one in found] == [0, 1]
    assert refused == {f"ours/ada/{prompt}_0.png": f"stands for the same picture as ours/ada/{prompt}.png"}


def test_photos_are_needed(protocol: Path, judge: Judge, tmp_path: Path) -> None:
    config = EvaluationConfig(protocol=str(protocol), out=tmp_path)
    with pytest.raises(InvalidData, match="--photos FOLDER"):
        evaluate(config, worker_of(config, judge, BlurredCopies()))
