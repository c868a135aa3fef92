import json
from pathlib import Path

import pytest
from PIL import Image

from consistentid.errors import InvalidData
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.jobs import Job, read_jobs, run_jobs
from consistentid.generation.portrait import read_settings

PROMPT = "a portrait of a person"


def write(path: Path, *jobs: object) -> Path:
    path.write_text("\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs))
    return path


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "C:x", ".", "a\nb"])
def test_names_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    jobs, bad = read_jobs(write(tmp_path / "jobs.jsonl", {"name": name, "photo": "p.jpg", "prompt": PROMPT}))
    assert not jobs
    assert [one.name for one in bad] == ["line 1"]
    assert "name" in bad[0].reason


def test_bad_lines_are_listed_and_good_ones_kept(tmp_path: Path) -> None:
    good = {"name": "a", "photo": "p.jpg", "prompt": PROMPT, "seed": 3, "merge_step": 0.5}
    path = write(
        tmp_path / "jobs.jsonl",
        good,
        "",
        "{not json",
        {**good, "name": "b", "sede": 1},
        {"name": "c", "prompt": PROMPT},
        {**good, "name": "d", "steps": "many"},
        good,
        {**good, "name": "a_0", "num_images": 1},
        {**good, "name": "a", "num_images": 2},
        "[]",
    )
    jobs, bad = read_jobs(path)
    assert [job.name for job in jobs] == ["a", "a_0"]
    assert [one.name for one in bad] == ["line 3", "line 4", "line 5", "line 6", "line 10", "a", "a"]
    assert "sede: is no known setting" in bad[1].reason
    assert "photo" in bad[2].reason
    assert "earlier job" in bad[-1].reason


def test_files_without_jobs(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="holds no job"):
        read_jobs(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(InvalidData, match="cannot be read"):
        read_jobs(tmp_path / "missing.jsonl")


def test_a_job_file_is_batched_survives_bad_jobs_and_resumes(
    generator: PortraitGenerator, tmp_path: Path, sample_photos: dict[str, Path]
) -> None:
    Image.open(sample_photos["synthetic-woman"]).resize((256, 256)).save(tmp_path / "photo.png")
    Image.new("RGB", (256, 256)).save(tmp_path / "nobody.png")
    common = {"photo": "photo.png", "prompt": PROMPT, "steps": 2}
    jobs = [
        Job(name="one", **common),
        Job(name="two", **{**common, "num_images": 2, "seed": 7}),
        Job(name="nobody", **{**common, "photo": "nobody.png"}),
        Job(name="rude", **{**common, "prompt": "a nude person"}),
        Job(name="other", **{**common, "guidance": 3.0}),
    ]
    out = tmp_path / "out"
    report = run_jobs(generator, jobs, out=out, photos=tmp_path, batch_size=4)
    assert sorted(report.done) == ["one", "other", "two"]
    assert [one.name for one in report.bad] == ["nobody", "rude"]
    assert "no face" in report.bad[0].reason
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "other.png", "two_0.png", "two_1.png"]
    assert read_settings(out / "two_1.png").batch_size == 3, "jobs with equal settings share a batch"

    before = (out / "one.png").stat().st_mtime_ns
    (out / "two_0.png").unlink()
    changed = [jobs[0], jobs[1], jobs[4].model_copy(update={"seed": 9})]
    report = run_jobs(generator, changed, out=out, photos=tmp_path)
    assert report.skipped == ["one"]
    assert sorted(report.done) == ["other", "two"]
    assert (out / "one.png").stat().st_mtime_ns == before
    assert read_settings(out / "other.png").seed == 9
    assert run_jobs(generator, changed, out=out, photos=tmp_path).skipped == ["one", "two", "other"]


def test_lines_end_where_json_says_so_and_each_is_read_alone(tmp_path: Path) -> None:
    good = {"name": "a", "photo": "p.jpg", "prompt": f"{PROMPT}\u2028with hair"}
    path = tmp_path / "jobs.jsonl"
    lines = [
        json.dumps(good, ensure_ascii=False).encode(),
        b'{"name": "b\xff"}',
        b"",
        json.dumps({**good, "name": "c"}).encode(),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    jobs, bad = read_jobs(path)
    assert [job.name for job in jobs] == ["a", "c"]
    assert [one.name for one in bad] == ["line 2"]


def test_a_setting_that_is_gone_is_a_change(
    generator: PortraitGenerator, tmp_path: Path, sample_photos: dict[str, Path]
) -> None:
    job = Job(name="a", photo=str(sample_photos["synthetic-woman"]), prompt=PROMPT, steps=1, regions=("eyes",))
    assert run_jobs(generator, [job], out=tmp_path, photos=tmp_path).done == ["a"]
    assert run_jobs(generator, [job], out=tmp_path, photos=tmp_path).skipped == ["a"]
    assert run_jobs(generator, [job.model_copy(update={"regions": None})], out=tmp_path, photos=tmp_path).done == ["a"]


def test_names_and_photos_of_any_length_are_bad_jobs(generator: PortraitGenerator, tmp_path: Path) -> None:
    long = [{"name": "名" * 100, "photo": "p.jpg", "prompt": PROMPT}]
    assert "bytes" in read_jobs(write(tmp_path / "jobs.jsonl", *long))[1][0].reason
    job = Job(name="a", photo="data:image/jpeg;base64," + "A" * 5000, prompt=PROMPT)
    report = run_jobs(generator, [job], out=tmp_path / "out", photos=tmp_path)
    assert [one.name for one in report.bad] == ["a"]
