"""The tree printed in README.md and docs/architecture.md is the disk, with a phrase a file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/architecture.md")
ROOTS = ("src/trajlm", "scripts", "benchmarks")
# Printed as one line each: their files are weights, or named after what they test.
CLOSED = ("src/trajlm/collect/behaviours", "tests")
# Every algorithm's folder holds these files; the tree prints them once, under NAME/, so that a
# new algorithm edits no page.
ALGORITHM = "src/trajlm/algorithms/NAME"


def printed_tree(text: str) -> dict[str, str]:
    """Path -> phrase of the block under the marker; two spaces a level, `/` ends a folder."""
    match = re.search(r"<!-- tree -->\s*```text\n(.*?)```", text, re.DOTALL)
    assert match, "no block under <!-- tree -->"
    found: dict[str, str] = {}
    parents: list[str] = []
    for line in match[1].splitlines():
        name, _, phrase = line.strip().partition(" ")
        level = (len(line) - len(line.lstrip())) // 2
        del parents[level:]
        path = "/".join([*parents, name.rstrip("/")])
        assert path not in found, f"{path} is printed twice"
        found[path] = phrase.strip()
        if name.endswith("/"):
            parents.append(name.rstrip("/"))
    return found


def is_shown(path: Path) -> bool:
    return path.name not in {"__init__.py", "py.typed"} and "__pycache__" not in path.parts


def disk() -> set[str]:
    """Files and folders that the tree must print."""
    found: set[str] = {"tests"}
    for root in ROOTS:
        for path in (REPOSITORY / root).rglob("*"):
            relative = path.relative_to(REPOSITORY).as_posix()
            if path.is_file() and is_shown(path):
                closed = [c for c in CLOSED if relative.startswith(c + "/")]
                found.add(closed[0] if closed else _algorithm_as_name(relative))
    folders = {parent for path in found for parent in _parents(path)}
    return found | folders


def _algorithm_as_name(relative: str) -> str:
    folder, name = "src/trajlm/algorithms/", relative
    if relative.startswith(folder) and "/" in relative.removeprefix(folder):
        name = f"{ALGORITHM}/{relative.removeprefix(folder).split('/', 1)[1]}"
    return name


def _parents(path: str) -> list[str]:
    """Folders above a path, up to its root: `src/trajlm` counts as one."""
    root = next((r for r in ROOTS if path.startswith(r + "/")), None)
    if root is None:
        return []
    inner = path.removeprefix(root + "/").split("/")[:-1]
    return [root, *("/".join([root, *inner[: depth + 1]]) for depth in range(len(inner)))]


@pytest.mark.parametrize("page", PAGES)
def test_the_printed_tree_is_the_disk(page: str) -> None:
    printed = printed_tree((REPOSITORY / page).read_text())
    on_disk = disk()
    missing = sorted(on_disk - set(printed))
    gone = sorted(set(printed) - on_disk)
    assert not missing, f"{page} does not print {missing}"
    assert not gone, f"{page} prints what is not there: {gone}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_tree_has_a_phrase(page: str) -> None:
    printed = printed_tree((REPOSITORY / page).read_text())
    assert not [path for path, phrase in printed.items() if not phrase and path != "src/trajlm"]


def test_both_pages_print_one_tree() -> None:
    readme, architecture = (printed_tree((REPOSITORY / page).read_text()) for page in PAGES)
    assert readme == architecture


def test_every_algorithm_has_the_fixed_files() -> None:
    names = {"__init__.py", "config.py", "model.py", "policy.py", "recipes.yaml", "README.md"}
    folders = [p.parent for p in (REPOSITORY / "src/trajlm/algorithms").glob("*/config.py")]
    assert folders
    for folder in folders:
        assert {path.name for path in folder.iterdir() if path.is_file()} == names, folder.name


def test_a_printed_tree_is_read_by_levels() -> None:
    text = (
        "<!-- tree -->\n```text\na/\n  b.py   one word\n  c/     two\n    d.py three\ne/ four\n```"
    )
    assert printed_tree(text) == {
        "a": "",
        "a/b.py": "one word",
        "a/c": "two",
        "a/c/d.py": "three",
        "e": "four",
    }


def test_links_inside_the_pages_lead_somewhere() -> None:
    for page in (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "docs/LOG.md", "docs/results.md"):
        text = (REPOSITORY / page).read_text()
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            there = (REPOSITORY / page).parent / target
            assert there.exists(), f"{page} links to {target}"


def tracked_texts() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        try:
            texts[name] = (REPOSITORY / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return texts


def test_no_file_names_a_machine_or_a_registry() -> None:
    # Joined here, so that this file passes its own test.
    words = [
        "/" + "work/",
        "/" + "root/",
        "pypi." + "org",
        "python" + "hosted",
        "download.py" + "torch",
    ]
    allowed = {".ci/run": {".." + "/shared"}}
    faults = [
        f"{name} says {word!r}"
        for name, text in tracked_texts().items()
        for word in [*words, ".." + "/shared"]
        if word in text and word not in allowed.get(name, set())
    ]
    assert not faults, "\n".join(faults)
