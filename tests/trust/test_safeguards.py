import json
import multiprocessing
from pathlib import Path

import pytest

from consistentid.errors import InvalidSettings, PromptRefused
from consistentid.trust import certificates
from consistentid.trust.audit import AuditLog
from consistentid.trust.certificates import load_signer, make_signer, save_signer
from consistentid.trust.policy import Asked
from consistentid.trust.safeguards import Safeguards


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONSISTENTID_CONFIG", str(tmp_path))
    for name in ("CONSISTENTID_CERTIFICATE", "CONSISTENTID_CERTIFICATE_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_file_is_read_and_options_win(folder: Path) -> None:
    assert Safeguards.configured() == Safeguards()
    (folder / "words.txt").write_text("Jane Doe\n")
    (folder / "trust.toml").write_text(f'blocked = "{folder}/words.txt"\nwatermark = true\nrequire_consent = true\n')
    chosen = Safeguards.configured(require_consent=False)
    assert chosen.marking().watermark
    chosen.chosen_policy().check(Asked("a person"))
    with pytest.raises(PromptRefused, match="jane doe"):
        chosen.chosen_policy().check(Asked("JANE DOE"))
    with pytest.raises(PromptRefused, match="consent"):
        Safeguards.configured().chosen_policy().check(Asked("a person"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("watermark = ", "is TOML"),
        ("watermrak = true", "watermrak: extra inputs are not permitted"),
        ("nudity_gate = 2", "nudity_gate: input should be less than or equal to 1"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "trust.toml").write_text(content)
    with pytest.raises(InvalidSettings, match=message):
        Safeguards.configured()


def test_whose_certificate_signs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Safeguards().marking().signer is None  # one that lasts as long as the process
    save_signer(make_signer("Mine"), folder)
    assert Safeguards().marking().signer.name == "Mine"  # type: ignore[union-attr]
    assert Safeguards(sign=False).marking().signer is None
    path = save_signer(make_signer("Theirs"), folder / "theirs")
    monkeypatch.setenv("CONSISTENTID_CERTIFICATE", str(path))
    with pytest.raises(InvalidSettings, match="give both"):
        Safeguards.configured().marking()
    monkeypatch.setenv("CONSISTENTID_CERTIFICATE_KEY", str(path.with_name("key.pem")))
    assert Safeguards.configured().marking().signer.name == "Theirs"  # type: ignore[union-attr]


def test_a_certificate_that_is_over_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_DAYS", 0)
    path = save_signer(make_signer("Late"), folder)
    with pytest.raises(InvalidSettings, match="not today; renew it"):
        load_signer(path, path.with_name("key.pem"))


def _note(path: Path, who: int) -> None:
    log = AuditLog(path)
    for _ in range(50):
        log.note("saved", {"who": who, "filling": "x" * 2000})


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "log" / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_note, args=(path, who)) for who in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["who"] for line in lines) == sorted(list(range(4)) * 50)


def test_a_log_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="nothing is made without it"):
        Safeguards(audit_log=tmp_path).marking()  # a folder
