"""The report: one self-contained HTML page from run folders.

Nothing on the page comes from elsewhere: style, charts and videos are inside it, and its content
security policy forbids the rest, scripts included. The same folders give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Template

from trajlm.core.files import replace_file
from trajlm.report import section_background as background
from trajlm.report import section_charts as charts
from trajlm.report import section_headline as top
from trajlm.report.facts import title as title_of
from trajlm.report.formatting import plain
from trajlm.report.html import Markup, join, tag
from trajlm.report.records import Entry, read_entries
from trajlm.report.section_held_out import held_out
from trajlm.report.section_methods import methods
from trajlm.report.section_plan import plans
from trajlm.report.section_scores import scores

HERE = Path(__file__).parent


def build_report(folders: Sequence[Path], output: Path, *, title: str | None = None) -> Path:
    """Write the page of these runs or groups of runs to `output` and return it.

    A run without evaluation, video or curves is shown with an explained gap. Raises `DataError`
    where a folder is no run, `StorageError` where `output` cannot be written.
    """
    entries = read_entries(folders)
    text = page(entries, title=title)
    output = Path(output)
    replace_file(output, text.encode("utf-8", errors="replace"))
    return output


def page(entries: Sequence[Entry], *, title: str | None = None) -> str:
    """The page's HTML."""
    title = plain(title or title_of(list(entries)))
    style = (HERE / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    compared, planned = methods(entries), plans(entries)
    absent = {"videos"} if len(entries) == 1 else set()
    absent |= {"methods"} if compared is None else set()
    absent |= {"plan"} if planned is None else set()
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=join(title),
        policy=policy,
        style=style,
        header=top.headline(entries, title=title),
        navigation=_navigation(absent),
        main=_main(entries, compared, planned),
    )


def _main(entries: Sequence[Entry], compared: Markup | None, planned: Markup | None) -> Markup:
    return join(
        scores(entries),
        compared,
        charts.conditioning(entries),
        top.videos(entries),
        planned,
        charts.episodes(entries),
        charts.training(entries),
        held_out(entries),
        top.what_was_run(entries),
        background.dataset(entries),
        background.protocol(entries),
        background.gaps(entries),
    )


def _navigation(absent: set[str]) -> Markup:
    links = [
        ("scores", "Scores"),
        ("methods", "Methods"),
        ("conditioning", "Asked and reached"),
        ("videos", "Videos"),
        ("plan", "Plan"),
        ("episodes", "Episodes"),
        ("training", "Training"),
        ("held-out", "Held-out loss"),
        ("run", "What was run"),
        ("data", "Data"),
        ("protocol", "Protocol"),
    ]
    shown = [(name, text) for name, text in links if name not in absent]
    return tag(
        "nav", tag("ul", (tag("li", tag("a", text, href=f"#{name}")) for name, text in shown)),
        aria_label="Sections",
    )  # fmt: skip
