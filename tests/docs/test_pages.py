"""What the pages show is true: Python runs, commands exist, links and named files lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mulle

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

# A block under a comment `<!-- checked, not run: reason -->` is parsed and its words looked up, but not run.
# So that none hides, every such block is counted here, by page.
NOT_RUN = {"docs/guides/operating.md": 1}

_BLOCK = re.compile(
    r"(?:<!-- checked, not run: (?P<reason>[^>]+?) -->\n+)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.S | re.M
)
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
_FILE = re.compile(r"`((?:src|tests|docs|examples|\.ci)/[\w./*-]+)`")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[tuple[str | None, str]]:
    found = _BLOCK.finditer(path.read_text())
    return [(m["reason"], m["body"]) for m in found if m["language"] in languages]


def commands() -> dict[str, set[str]]:
    """Every command's full name with the options it takes, its groups' own options included."""
    spec = importlib.util.spec_from_file_location("mulle_docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, set[str]] = {}
    for full, command in module.commands():
        own = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        found[full] = own | found.get(full.rpartition(" ")[0], set()) | {"--help"}
    return found


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_blocks_run_in_order(path: Path, tmp_path: Path) -> None:
    code = [body for reason, body in blocks(path, "python") if reason is None]
    (tmp_path / "page.py").write_text("\n".join(code))
    answer = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, f"{name(path)}:\n{answer.stderr[-2000:]}"


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_blocks_use_words_that_exist(path: Path) -> None:
    for _, body in blocks(path, "python"):
        used = {
            node.attr
            for node in ast.walk(ast.parse(body))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ml"
        }
        assert used <= set(mulle.__all__), f"{name(path)}: {sorted(used - set(mulle.__all__))}"


def test_blocks_that_are_not_run_are_counted() -> None:
    found = {name(p): n for p in PAGES if (n := sum(reason is not None for reason, _ in blocks(p, "python")))}
    assert found == NOT_RUN


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "bash", "sh", "console")], ids=name)
def test_shell_blocks_name_commands_that_exist(path: Path) -> None:
    known = commands()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for _, body in blocks(path, "bash", "sh", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            words = line.split("#")[0].removeprefix("$ ").split()
            if words[:1] == ["make"]:
                assert words[1] in targets, f"{name(path)}: no target {words[1]}"
            elif words[:1] == ["mulle"]:
                check_command(name(path), words, known)


def check_command(page: str, words: list[str], known: dict[str, set[str]]) -> None:
    full = max((c for c in known if words[: len(c.split())] == c.split()), key=len)
    assert len(words) == 1 or full != "mulle" or words[1].startswith("-"), f"{page}: no command '{' '.join(words[:2])}'"
    options = {w.split("=")[0] for w in words if w.startswith("--")}
    assert options <= known[full] | known["mulle"], f"{page}: {full} does not take {sorted(options - known[full])}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    dead = [link for link in _LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not dead, f"{name(path)}: {dead}"


@pytest.mark.parametrize("path", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name)
def test_files_that_are_named_exist(path: Path) -> None:
    gone = [f for f in _FILE.findall(path.read_text()) if not any(ROOT.glob(f.rstrip("/")))]
    assert not gone, f"{name(path)}: {gone}"


def test_every_decision_says_context_choice_and_cost() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        text = path.read_text()
        assert all(f"## {part}" in text for part in ("Context", "Choice", "Cost")), name(path)


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    reached = {(ROOT / "docs" / link).resolve() for link in _LINK.findall(index)}
    missing = [name(p) for p in (ROOT / "docs").rglob("*.md") if p.resolve() not in reached and p.name != "index.md"]
    assert not missing
