"""The page: whole, safe, self-contained, and truthful about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trajlm.core.errors import DataError, StorageError
from trajlm.report import build_report
from trajlm.report.chart_training import thinned
from trajlm.report.html import VOID
from trajlm.report.readings import by_protocol
from trajlm.report.records import read_entries
from trajlm.report.section_headline import video
from trajlm.report.section_held_out import held_out
from trajlm.report.section_scores import scores

WriteRun = Callable[..., Path]
Examples = Callable[[str], Path]


class Page(HTMLParser):
    """Every element with its attributes, the visible text, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.elements if name == tag)


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., Page]:
    """Builds a page of some folders and parses it."""

    def build(*folders: Path, **options: str) -> Page:
        return read(build_report(folders, tmp_path / "out" / "report.html", **options))

    return build


def test_a_run_is_told_in_words_numbers_and_charts(examples: Examples) -> None:
    page = read(examples("single"))
    assert "Decision Transformer on HalfCheetah-v5" in page.words
    assert re.search(r"Asked for 5,500 it reached 5,\d{3} ± \d+ over 50 episodes\.", page.words)
    for fact in (
        "trajlm/halfcheetah/medium-expert-v0",
        "MuJoCo 3.3.7",
        "AMD EPYC 9B14, 2 cores, Linux",
        "torch 2.13.0",
        "5,000 of 6,000",
        "trajlm collect halfcheetah/medium-expert --steps 200000",
        "trajlm evaluate runs/demo --policy.target-return 1000 2000 4000 5500 7000",
        "One training seed: the interval is over episodes",
        "Return of an episode",
    ):
        assert fact in page.words, fact
    charts = list(page.all("svg"))
    assert len(charts) == 6  # three charts, each for desktop and for phone width
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in charts)
    labels = {a.get("aria-labelledby") for a in page.all("section")}
    assert labels <= {a["id"] for a in page.all("h2")}
    (picture,) = page.all("img")
    assert picture["src"].startswith("data:image/gif;base64,")
    assert "HalfCheetah-v5" in picture["alt"]


@pytest.mark.parametrize("name", ["single", "mixed", "bare"])
def test_nothing_on_the_page_comes_from_elsewhere(name: str, examples: Examples) -> None:
    page = read(examples(name))
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {
        tag for tag, _ in page.elements
    }
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for attribute in ("src", "href", "xlink:href", "poster", "srcset", "action", "data"):
            value = attributes.get(attribute, "data:")
            assert value.startswith(("data:", "#")), value
            assert value.startswith("data:") or value[1:] in identities, value
        for value in attributes.values():
            for reference in re.findall(r"url\(([^)]*)\)", value):
                assert reference.startswith("#"), reference
                assert reference[1:] in identities, reference


def test_the_policy_allows_this_page_s_style_and_nothing_else(examples: Examples) -> None:
    text = examples("single").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "url(" not in style
    assert "@import" not in style


ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_everything_from_files_is_escaped(write_run: WriteRun, report: Callable) -> None:
    facts = {"recipe": ATTACK, "env_id": ATTACK, "data": ATTACK}
    folder = write_run("<script>alert(1)", metrics=False, targets=(1000.0,), **facts)
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {"machine": ATTACK, "git": ATTACK, "command": ["trajlm", ATTACK]}
    meta["versions"]["torch"] = ATTACK
    (folder / "meta.json").write_text(json.dumps(meta))
    page = report(folder, title=ATTACK)
    assert ATTACK in page.words
    assert not list(page.all("script"))
    assert not [a for a in page.all("img") if a.get("src") == "x"]
    assert not [a for _, a in page.elements if "onerror" in a]


def test_the_same_folders_give_the_same_bytes(write_run: WriteRun, tmp_path: Path) -> None:
    folders = [write_run(targets=(1000.0,), updates=200, video="gif")]
    one = build_report(folders, tmp_path / "a.html").read_bytes()
    assert build_report(folders, tmp_path / "b.html").read_bytes() == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html", "runs"]


def test_a_page_stays_small(examples: Examples) -> None:
    assert examples("single").stat().st_size < 300_000
    assert examples("group").stat().st_size < 500_000
    assert examples("mixed").stat().st_size < 1_500_000


def test_long_runs_are_thinned_without_changing_their_level() -> None:
    values = {step: 1.0 + step % 2 for step in range(100_000)}
    steps, numbers = thinned(values, limit=300)
    assert len(steps) == len(numbers) == 300
    assert abs(numbers.mean() - 1.5) < 1e-3
    assert steps[0] < steps[-1] < 100_000


def test_rows_of_different_protocols_are_marked_and_drawn_apart(examples: Examples) -> None:
    page = read(examples("mixed"))
    assert "Not comparable across protocols" in page.words
    assert "measured differently: precision, environment, dataset." in page.words
    badges = [a["title"] for a in page.all("span") if a.get("class") == "badge"]
    # One in each row, one above the rows, one above each of two charts.
    assert badges.count("Protocol A") == 3 * 5 + 3
    assert badges.count("Protocol B") == 5 + 3
    assert badges.count("Protocol C") == 2 + 3
    alts = [
        a["aria-label"] for a in page.all("svg") if a["aria-label"].startswith("Return reached")
    ]
    assert len(alts) == 2 * 3
    assert {("demo:" in a, "rough:" in a, "hopper:" in a) for a in alts} == {
        (True, False, False), (False, True, False), (False, False, True)
    }  # fmt: skip
    assert all("small:" in alt and "three-seeds:" in alt for alt in alts if "demo:" in alt)


def test_rows_of_one_protocol_are_not_marked(write_run: WriteRun) -> None:
    folders = [write_run(metrics=False), write_run("two", metrics=False, skill=0.5)]
    (group,) = by_protocol(read_entries(folders))
    assert [entry.name for entry, _ in group.members] == ["one", "two"]
    entries = read_entries(folders)
    assert "Not comparable" not in scores(entries)
    assert "badge" not in scores(entries)


def test_a_group_shows_its_rows_and_each_seed(examples: Examples) -> None:
    page = read(examples("group"))
    assert "over 3 training seeds" in page.words
    assert "3 training seeds, fewer than 5" in page.words
    assert "Each training seed by itself" in page.words
    assert "three-seeds/seed-2" in page.words
    assert "one training seed" in page.words
    assert "runs/three-seeds/run.yaml --seeds 3" in page.words


def test_a_group_that_did_not_finish_is_shown_seed_by_seed(
    write_seeds: Callable, report: Callable
) -> None:
    folder = write_seeds(seeds=2, targets=(1000.0,), updates=200)
    (folder / "results.json").unlink()
    page = report(folder)
    assert "2 runs compared" in page.words
    assert "it did not finish" in page.words


def test_a_group_names_no_folder_outside_itself(write_seeds: Callable, write_run: WriteRun) -> None:
    folder = write_seeds(seeds=1, targets=(1000.0,))
    write_run("secret")
    group = json.loads((folder / "results.json").read_text())
    group["runs"] = ["../secret", "seed-0"]
    (folder / "results.json").write_text(json.dumps(group))
    (entry,) = read_entries([folder])
    assert [run.folder.name for run in entry.runs] == ["seed-0"]
    assert "1 of the 2 runs it names are missing." in entry.gaps


def test_gaps_are_explained(examples: Examples, write_run: WriteRun, report: Callable) -> None:
    page = read(examples("gaps"))
    assert "training stopped at update 1,240 of 5,000" in page.words
    assert "trajlm train --resume runs/crashed" in page.words
    assert "has no video, as it has not been evaluated" in page.words
    page = report(write_run("silent", metrics=False, targets=(1000.0,)))
    assert "silent has no training curves" in page.words
    assert "silent has no video. 'trajlm evaluate runs/silent' records one." in page.words


def test_a_bare_folder_is_a_page_of_gaps(tmp_path: Path, report: Callable) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n{"st')
    page = report(tmp_path / "bare")
    assert "no update was logged" in page.words
    assert "metrics.jsonl: lines that are not whole were left out (1)" in page.words
    assert not list(page.all("svg"))


HOSTILE = [None, True, "\ud800\x00", -1e308, [None, "x"], {"a": [{}]}]


def test_no_value_in_a_file_breaks_the_page(write_run: WriteRun, report: Callable) -> None:
    folders = []
    for number, value in enumerate(HOSTILE):
        folder = write_run(str(number), metrics=False, targets=(1000.0,))
        (results,) = folder.glob("eval/*/results.json")
        for path in (folder / "meta.json", folder / "dataset.json", results):
            content = json.loads(path.read_text())
            broken = {key: value if key != "format" else old for key, old in content.items()}
            path.write_text(json.dumps(broken))
        lines = [{"step": value, "train/loss": 1.0}, {"step": 3, "train/loss": value}, value]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (folder / "run.yaml").write_text(json.dumps({"training": value, "data": value}))
        folders.append(folder)
    report(*folders)
    for folder, value in zip(folders, HOSTILE, strict=True):
        (results,) = folder.glob("eval/*/results.json")
        results.write_text(json.dumps({"format": "trajlm.results/1", **hostile_rows(value)}))
    assert f"{len(HOSTILE)} runs compared" in report(*folders).words


def hostile_rows(value: object) -> dict[str, object]:
    """Rows that are sound but for one value, and a protocol in which none is."""
    names = ("return_interval", "interval_kind", "return_means", "seeds", "episodes", "failed")
    rows = [{"target_return": 1.0, "return_mean": 2.0, name: value} for name in names]
    shared = {"env_id": "Same-v0", "dataset": None}
    return {
        "protocol": dict.fromkeys(("targets", "updates", "machine"), value) | shared,
        "rows": [value, {}, dict.fromkeys(("target_return", "return_mean"), value), *rows],
    }


def test_a_video_too_large_or_empty_is_named_instead(write_run: WriteRun) -> None:
    def shown(name: str, content: bytes) -> Page:
        folder = write_run(name, metrics=False, video=content)
        return Page(video(read_entries([folder])[0]))

    page = shown("large", b"\0" * 3_000_001)
    assert "too large for this page" in page.words
    assert "eval/step-00005000/video.mp4" in page.words
    assert "video.mp4 is empty" in shown("empty", b"").words
    (player,) = shown("whole", b"\0" * 100).all("video")
    assert {"controls", "loop", "muted", "playsinline"} <= set(player)
    assert player["src"].startswith("data:video/mp4;base64,")


def test_a_folder_that_is_no_run_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"not a run .* such as runs/NAME"):
        build_report([tmp_path / "photos"], output)
    with pytest.raises(DataError, match="no such folder"):
        build_report([tmp_path / "nowhere"], output)
    with pytest.raises(DataError, match="no run given"):
        build_report([], output)
    folder = write_run()
    with pytest.raises(DataError, match=r"it holds runs; pass .*/runs/\*"):
        build_report([folder.parent], output)
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_a_storage_error(
    write_run: WriteRun, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        build_report(
            [write_run(evaluation=False, metrics=False)], tmp_path / "file" / "report.html"
        )
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        build_report([write_run("two", evaluation=False, metrics=False)], tmp_path / "folder")
    assert not list(tmp_path.glob(".*"))


def test_runs_of_one_name_are_told_apart(write_run: WriteRun) -> None:
    folders = [write_run(name, evaluation=False, metrics=False) for name in ("a/run", "b/run")]
    assert [entry.name for entry in read_entries(folders)] == ["a/run", "b/run"]
    assert len(read_entries([folders[0], folders[0]])) == 1


def test_without_matplotlib_the_page_says_so(
    write_run: WriteRun, report: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = report(write_run())
    assert "matplotlib is not installed" in page.words
    assert not list(page.all("svg"))


def test_neither_torch_nor_pyplot_is_loaded(write_run: WriteRun, tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from trajlm.report import build_report;"
        "early = 'matplotlib' in sys.modules;"
        f"build_report([Path({str(write_run(evaluation=False))!r})], Path({str(tmp_path / 'r.html')!r}));"
        "print(early, 'torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False", "False"]


def test_held_out_tokens_stand_slot_by_slot(write_run: WriteRun) -> None:
    folder = write_run("tokens")
    with (folder / "metrics.jsonl").open("a") as file:
        for step, share in ((100, 0.25), (200, 0.5)):
            line = {"step": step, "validation/accuracy/action_0": share}
            file.write(json.dumps({**line, "validation/nats/action_0": 1.25}) + "\n")
    page = str(held_out(read_entries([folder])))
    row = re.search(r"<tr><th scope=.row.>action_0</th>(.*?)</tr>", page)
    assert row and re.findall(r"<td>(.*?)</td>", row[1]) == ["50%", "1.25"]
    assert "Held-out tokens" not in str(held_out(read_entries([write_run("none")])))
