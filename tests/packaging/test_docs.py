"""The documentation says what the code does: its links, pictures, commands and imports."""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from consistentid.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ALL_PAGES = [*PAGES, *sorted(ROOT.glob("*.md"))]
REFERENCE = set(re.findall(r"^::: (\S+)", "\n".join(page.read_text() for page in PAGES), re.MULTILINE))


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def _links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", ALL_PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_site_has_every_page() -> None:
    def pages(entries: object) -> Iterator[str]:
        if isinstance(entries, str):
            yield entries
        elif isinstance(entries, list | dict):
            for entry in entries.values() if isinstance(entries, dict) else entries:
                yield from pages(entry)

    listed = list(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_pictures_are_small_and_shown() -> None:
    pictures = {path for path in (DOCS / "images").iterdir() if path.suffix != ".md"}
    shown = {(page.parent / link).resolve() for page in ALL_PAGES for link in _links(page)}
    assert not pictures - shown
    assert not [path.name for path in pictures if path.suffix == ".webp" and path.stat().st_size > 100_000]


@pytest.mark.parametrize("page", [page for page in ALL_PAGES if page.name != "CHANGELOG.md"], ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "src|tests|configs|benchmarks|scripts|examples|docs"
    named = re.findall(rf"`(?:python )?((?:{folders})/[\w./-]+)", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


def _commands(page: Path) -> Iterator[str]:
    for block in _blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("consistentid ") and "…" not in line:
                yield line


@pytest.mark.parametrize("page", [page for page in ALL_PAGES if list(_commands(page))], ids=_name)
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in _commands(page):
        words = shlex.split(line, comments=True)[1:]
        command, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert command.__module__.startswith("consistentid."), line  # not the one that prints help


def test_make_has_the_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in ALL_PAGES for block in _blocks(page, "bash") for word in _targets(block)}
    assert named
    assert not named - targets


def _targets(block: str) -> Iterator[str]:
    for line in block.splitlines():
        if line.startswith("make "):
            words = shlex.split(line, comments=True)[1:]
            yield from (word for word in words if "=" not in word)


@pytest.mark.parametrize("page", [page for page in ALL_PAGES if _blocks(page, "python")], ids=_name)
def test_python_can_be_imported_and_is_in_the_reference(page: Path) -> None:
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("consistentid"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
                    assert {node.module, f"{node.module}.{alias.name}"} & REFERENCE, f"{node.module} in reference.md"
