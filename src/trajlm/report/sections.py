"""The page's sections, each a function from runs to HTML; none raises for what is missing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from trajlm.report import charts
from trajlm.report.charts import Series
from trajlm.report.facts import (
    algorithm,
    commands,
    dataset_facts,
    dataset_name,
    environment,
    facts,
    missing_evaluation,
)
from trajlm.report.formatting import amount, asked, count, finite, plain
from trajlm.report.html import Child, Markup, join, tag
from trajlm.report.readings import (
    best_return,
    describe_protocol,
    differences,
    entry_warnings,
    headline_row,
    histogram,
    obedience,
    protocol_of,
    quantile_pairs,
    sentence,
)
from trajlm.report.records import VIDEO_TYPES, Entry, Row
from trajlm.report.tables import SCORE_HEADINGS, score_cells

MAX_VIDEO_BYTES = 3_000_000
MAX_VIDEOS = 8
TITLES = {
    "asked": "Asked for",
    "reached": "Reached, mean",
    "95% interval": "95% interval",
    "interval over": "interval over",
    "d4rl_score": "d4rl_score",
    "dataset_score": "dataset_score",
    "episodes": "Episodes",
    "failed": "Failed",
    "length": "Length, steps",
}
Pairs = tuple[tuple[str, str], ...]


def section(identity: str, heading: str, *children: Child) -> Markup:
    """A section with its heading, reachable by `#identity`."""
    label = f"{identity}-heading"
    return tag(
        "section", tag("h2", heading, id=label), *children, id=identity, aria_labelledby=label
    )


def gap(text: str) -> Markup:
    """A place where something is missing, and why."""
    return tag("p", text, class_="gap")


def scroll(label: str, *children: Child) -> Markup:
    """A box that scrolls sideways by itself, reachable by keyboard."""
    return tag("div", *children, class_="scroll", role="region", aria_label=label, tabindex="0")


def series_of(entries: Sequence[Entry]) -> list[Series]:
    """The entries as the charts know them, each with its place in the palette."""
    return [
        Series(
            name=entry.name,
            index=index,
            rows=entry.rows,
            episodes=entry.episodes,
            metrics=tuple(run.metrics for run in entry.runs),
            history={e.step: e.rows for e in entry.runs[0].evaluations if e.rows}
            if entry.runs
            else {},
        )
        for index, entry in enumerate(entries)
    ]


# ---- headline -------------------------------------------------------------------------------


def headline(entries: Sequence[Entry], *, title: str) -> Markup:
    """Title, the sentence that says how it went, and the video of a single run."""
    words = [tag("h1", title), *(_lede(entry, alone=len(entries) == 1) for entry in entries)]
    if len(entries) > 1:
        return tag("header", tag("div", *words), class_="hero")
    return tag("header", tag("div", *words), video(entries[0]), class_="hero with-video")


def _lede(entry: Entry, *, alone: bool) -> Markup:
    row = headline_row(entry.rows, best_return=best_return(entry.dataset))
    if row is None:
        text: Child = missing_evaluation(entry.runs[0]) if entry.runs else "No run to show."
    else:
        said = sentence(row)
        text = join(said[0].upper() + said[1:], ".")
    if not alone:
        return tag("p", tag("strong", entry.name), ": ", text, class_="lede small")
    more = obedience(entry.rows)
    return join(tag("p", text, class_="lede"), tag("p", more) if more else None)


def what_was_run(entries: Sequence[Entry]) -> Markup:
    """Facts, and the commands that repeat them."""
    if len(entries) == 1:
        body: Child = definition_list(facts(entries[0]))
    else:
        body = _comparison([(entry.name, dict(facts(entry))) for entry in entries], "What was run")
    blocks = [
        join(
            tag("h3", "Repeat it" if len(entries) == 1 else f"Repeat {entry.name}"),
            scroll("Commands", tag("pre", tag("code", _script(entry)))),
            _configuration(entry),
        )
        for entry in entries
    ]
    return section("run", "What was run", body, *blocks)


def _script(entry: Entry) -> str:
    return "\n".join(f"# {purpose}\n{line}" for purpose, line in commands(entry))


def _configuration(entry: Entry) -> Markup | None:
    text = next((run.config_text for run in entry.runs if run.config_text), "")
    if not text:
        return None
    summary = tag("summary", "Every setting (run.yaml)")
    return tag("details", summary, scroll("run.yaml", tag("pre", tag("code", text[:100_000]))))


def definition_list(pairs: Sequence[tuple[str, str]]) -> Markup:
    return tag(
        "dl", (tag("div", tag("dt", label), tag("dd", value)) for label, value in pairs),
        class_="facts",
    )  # fmt: skip


def _comparison(columns: Sequence[tuple[str, dict[str, str]]], caption: str) -> Markup:
    """A fact a line, an entry a column; lines that differ are marked."""
    labels = list(dict.fromkeys(label for _, values in columns for label in values))
    lines = []
    for label in labels:
        cells = [values.get(label, "–") for _, values in columns]
        differs = len(set(cells)) > 1
        head = tag(
            "th", label, tag("span", " differs", class_="tagged") if differs else None, scope="row"
        )
        lines.append(tag("tr", head, (tag("td", cell) for cell in cells)))
    head = tag("tr", tag("td"), (tag("th", name, scope="col") for name, _ in columns))
    return scroll(caption, tag("table", tag("thead", head), tag("tbody", lines), class_="compare"))


# ---- scores ---------------------------------------------------------------------------------


def protocols(entries: Sequence[Entry]) -> dict[Pairs, list[tuple[Entry, Row]]]:
    """Rows by the protocol they share, in the order met."""
    found: dict[Pairs, list[tuple[Entry, Row]]] = {}
    for entry in entries:
        for row in entry.rows:
            found.setdefault(protocol_of(row, entry.protocol), []).append((entry, row))
    return found


def scores(entries: Sequence[Entry]) -> Markup:
    """The score table, one body for each protocol, and what to know before quoting it."""
    groups = protocols(entries)
    missing = [
        gap(f"{run.name}: {missing_evaluation(run)}")
        for entry in entries for run in entry.runs if run.evaluation is None
    ]  # fmt: skip
    if not groups:
        return section("scores", "Scores", *missing)
    named, mixed = len(entries) > 1 or _by_run(entries), len(groups) > 1
    titles = [("Run",)] * named + [(TITLES[name],) for name in SCORE_HEADINGS]
    titles += [("Protocol",)] * mixed
    head = tag("tr", (tag("th", name, scope="col") for (name,) in titles))
    bodies = [
        _score_body(pairs, rows, letter=letter(i) if mixed else None, named=named, span=len(titles))
        for i, (pairs, rows) in enumerate(groups.items())
    ]
    table = scroll("Scores", tag("table", tag("thead", head), bodies, class_="scores"))
    return section(
        "scores", "Scores", _not_comparable(list(groups)) if mixed else None, table,
        _score_notes(entries), *missing, _each_seed(entries),
        tag(
            "p", "Asked for and reached are returns: the sum of an episode's rewards, undiscounted. ",
            "d4rl_score: 0 is D4RL's published random return, 100 its expert's. dataset_score: 0 is "
            "the random behaviour, 100 the expert behaviour of this dataset.", class_="fine",
        ),
    )  # fmt: skip


def letter(number: int) -> str:
    """A, B, ... Z, A2, ..."""
    return chr(ord("A") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def _by_run(entries: Sequence[Entry]) -> bool:
    return any("run" in row for entry in entries for row in entry.rows)


def _score_body(
    pairs: Pairs,
    rows: Sequence[tuple[Entry, Row]],
    *,
    letter: str | None,
    named: bool,
    span: int,
) -> Markup:
    lines = []
    if letter is not None:
        text = join(badge(letter), " ", describe_protocol(pairs))
        cell = tag("th", tag("span", text, class_="stay"), scope="rowgroup", colspan=str(span))
        lines.append(tag("tr", cell, class_="protocol"))
    for entry, row in rows:
        name = f"{entry.name}/{plain(row['run'])}" if "run" in row else entry.name
        cells = score_cells(row)
        first = [tag("th", name, scope="row")] if named else []
        marked = [tag("td", badge(letter))] if letter is not None else []
        lines.append(tag("tr", first, (tag("td", cell) for cell in cells), marked))
    return tag("tbody", lines)


def badge(text: str) -> Markup:
    return tag("span", text, class_="badge", title=f"Protocol {text}")


def _not_comparable(groups: Sequence[Pairs]) -> Markup:
    names = dict.fromkeys(name for other in groups[1:] for name in differences(groups[0], other))
    letters = ", ".join(letter(i) for i in range(len(groups)))
    return tag(
        "p", tag("strong", "Not comparable across protocols. "),
        f"Rows marked {letters} were measured differently: {', '.join(names)}. "
        "Compare rows of one letter only.", class_="warning", role="note",
    )  # fmt: skip


def _score_notes(entries: Sequence[Entry]) -> Markup | None:
    """Each warning once, with the runs it holds for where it does not hold for all."""
    holders: dict[str, list[str]] = {}
    for entry in entries:
        for text in entry_warnings(entry):
            holders.setdefault(text, []).append(entry.name)
    if not holders:
        return None
    lines = [
        tag("li", text if len(names) == len(entries) else f"{', '.join(names)}: {text}")
        for text, names in holders.items()
    ]
    return tag("ul", lines, class_="warning", role="note")


def _each_seed(entries: Sequence[Entry]) -> Markup | None:
    """The rows behind the rows of a group."""
    lines = [
        tag("tr", tag("th", run.name, scope="row"), (tag("td", c) for c in score_cells(row)))
        for entry in entries if entry.is_group and not _by_run([entry])
        for run in entry.runs if run.evaluation is not None
        for row in run.evaluation.rows
    ]  # fmt: skip
    if not lines:
        return None
    head = tag(
        "tr", (tag("th", n, scope="col") for n in ("Run", *(TITLES[k] for k in SCORE_HEADINGS)))
    )
    table = tag("table", tag("thead", head), tag("tbody", lines), class_="scores")
    return tag("details", tag("summary", "Each training seed by itself"), scroll("Seeds", table))


# ---- charts ---------------------------------------------------------------------------------


def conditioning(entries: Sequence[Entry]) -> Markup:
    """One chart for each protocol: curves that cannot be compared do not share one."""
    groups = protocols(entries)
    every = {one.name: one for one in series_of(entries)}
    figures = []
    for number, (pairs, rows) in enumerate(groups.items()):
        members = list(dict.fromkeys(entry.name for entry, _ in rows))
        chosen = [
            Series(
                name=name,
                index=every[name].index,
                rows=tuple(row for entry, row in rows if entry.name == name and "run" not in row),
            )
            for name in members
        ]
        chosen = [
            one for one in chosen
            if any(finite(row.get("target_return")) is not None for row in one.rows)
        ]  # fmt: skip
        if chosen:
            owner = next(entry for entry, _ in rows)
            mark = letter(number) if len(groups) > 1 else None
            figures.append(_conditioning_figure(chosen, owner, pairs, number, mark))
    if not figures:
        why = "no run was evaluated" if not groups else "no row was asked for a return"
        figures.append(gap(f"No curve: {why}."))
    return section("conditioning", "Does it do what it is asked?", *figures)


def _conditioning_figure(
    chosen: Sequence[Series], owner: Entry, pairs: Pairs, number: int, mark: str | None
) -> Markup:
    counts, best = histogram(owner.dataset), best_return(owner.dataset)
    chart = charts.guarded(
        lambda: charts.conditioning(chosen, key=f"asked-{number}", histogram=counts, best=best)
    )
    keys = [(str(one.index), one.name) for one in chosen]
    keys += [("interval", "95% interval"), ("identity", "exactly as asked")]
    if any(row.get("seed_means") for one in chosen for row in one.rows):
        keys.append(("cross", "one training seed"))
    if counts:
        keys.append(("area", "episodes in the data"))
    if best is not None:
        keys.append(("beyond", "beyond the best episode in the data"))
    said = [
        tag("li", f"{one.name}: " if len(chosen) > 1 else None, f"{sentence(row)}.")
        for one in chosen
        for row in one.rows
    ]
    heading = tag("h3", badge(mark), " ", describe_protocol(pairs)) if mark else None
    missing = (
        None
        if counts
        else gap("The dataset's returns are not shown: dataset.json has no return_histogram.")
    )
    caption = tag(
        "figcaption", "On the dashed line the agent reaches exactly what it is asked for. Below the "
        "curve: how often the data contains such a return.",
    )  # fmt: skip
    figure = tag("figure", chart, charts.legend(keys), caption)
    return join(heading, figure, missing, _in_words(said))


def _in_words(said: Sequence[Markup]) -> Markup:
    listing = tag("ul", said, class_="said")
    if len(said) <= 8:
        return join(tag("h3", "In words"), listing)
    return tag("details", tag("summary", f"In words ({len(said)} rows)"), listing)


def training(entries: Sequence[Entry]) -> Markup:
    """Loss, learning rate, gradient norm, updates per second; returns at each evaluation."""
    series = series_of(entries)
    chart = charts.guarded(lambda: charts.training(series, key="training"))
    if chart is None:
        return section("training", "Training", gap("No curves: metrics.jsonl is missing or empty."))
    keys = [(str(one.index), one.name) for one in series] if len(series) > 1 else []
    held_out = any(m.get("validation/loss") for one in series for m in one.metrics)
    keys.append(("line", "training batches"))
    if held_out:
        keys.append(("points", "held-out episodes (points)"))
    without = [
        gap(f"{run.name} has no training curves: metrics.jsonl is missing or empty.")
        for entry in entries for run in entry.runs if not run.metrics
    ]  # fmt: skip
    figure = tag("figure", chart, charts.legend(keys))
    return section("training", "Training", figure, *without)


def episodes(entries: Sequence[Entry]) -> Markup:
    """Every evaluated episode as a dot."""
    series = series_of(entries)
    chart = charts.guarded(lambda: charts.strip(series, key="episodes"))
    if chart is None:
        return section("episodes", "Every episode", gap("No episodes: no episodes.csv was found."))
    every = [episode for one in series for episode in one.episodes]
    keys = [(str(one.index), one.name if len(series) > 1 else "one episode") for one in series]
    if any(e.terminated and not e.failed for e in every):
        keys.append(("hollow", "ended early (terminated)"))
    if any(e.failed for e in every):
        keys.append(("cross", "failed"))
    keys += [("mean", "mean and 95% interval"), ("tick", "return asked for")]
    caption = tag(
        "figcaption", f"{count(len(every), 'episode')}. Heights inside a row only spread the dots."
    )
    return section("episodes", "Every episode", tag("figure", chart, charts.legend(keys), caption))


# ---- video ----------------------------------------------------------------------------------


def videos(entries: Sequence[Entry]) -> Markup | None:
    """All videos of a comparison; a single run's stands in the headline."""
    if len(entries) == 1:
        return None
    return section("videos", "Videos", tag("div", map(video, entries), class_="videos"))


def video(entry: Entry) -> Markup:
    """The run's video inside the page, or why it is not there."""
    found = next((run.videos for run in entry.runs if run.videos), ())
    if not found:
        place = f"{entry.folder.parent.name}/{entry.folder.name}"
        return gap(f"{entry.name} has no video. 'trajlm evaluate {place}' records one.")
    rank = {kind: order for order, kind in enumerate(VIDEO_TYPES)}
    path = min(found, key=lambda p: (rank[p.suffix.lower()], p.name))
    shown = "/".join(path.parts[-4:])
    try:
        size = path.stat().st_size
        if size > MAX_VIDEO_BYTES:
            return gap(
                f"The video is not inside this page: {shown} has {size / 1e6:.1f} MB, "
                f"more than {MAX_VIDEO_BYTES / 1e6:.0f} MB."
            )
        content = path.read_bytes()
    except OSError as error:
        return gap(f"The video {shown} cannot be read ({error.strerror}).")
    if not content:
        return gap(f"The video {shown} is empty.")
    return tag("figure", _player(path, content, entry), tag("figcaption", _video_caption(entry)))


def _player(path: Path, content: bytes, entry: Entry) -> Markup:
    kind = VIDEO_TYPES[path.suffix.lower()]
    address = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    label = f"{algorithm(entry)} in {environment(entry)}: one episode of {entry.name}"
    if kind.startswith("image/"):
        return tag("img", src=address, alt=label)
    return tag(
        "video", "This browser plays no embedded video.", src=address, aria_label=label,
        controls=True, loop=True, muted=True, playsinline=True, preload="auto",
    )  # fmt: skip


def _video_caption(entry: Entry) -> str:
    row = headline_row(entry.rows, best_return=best_return(entry.dataset))
    asked_for = None if row is None else row.get("target_return")
    where = f"{entry.name}: one episode in {environment(entry)}"
    return where if asked_for is None else f"{where}, trained to reach what it is asked for"


# ---- data and protocol ----------------------------------------------------------------------


def dataset(entries: Sequence[Entry]) -> Markup:
    """Each dataset's summary once."""
    blocks: list[Markup] = []
    seen: dict[str, str] = {}
    for entry in entries:
        name = dataset_name(entry)
        if not entry.dataset:
            blocks.append(
                gap(f"{entry.name}: dataset.json is missing, nothing is known of its data.")
            )
            continue
        identity = repr(sorted(entry.dataset.items(), key=lambda pair: pair[0]))
        if identity in seen:
            continue
        seen[identity] = name
        blocks.append(_dataset_block(entry, heading=name))
    return section("data", "The data", *blocks)


def _dataset_block(entry: Entry, *, heading: str) -> Markup:
    pairs = quantile_pairs(entry.dataset)
    table = None
    if pairs:
        head = tag("tr", (tag("th", _level(level), scope="col") for level, _ in pairs))
        line = tag("tr", (tag("td", amount(value)) for _, value in pairs))
        table = join(
            tag("h4", "Quantiles of the episodes' returns"),
            scroll(
                "Quantiles", tag("table", tag("thead", head), tag("tbody", line), class_="scores")
            ),
        )
    return join(tag("h3", heading), definition_list(dataset_facts(entry.dataset)), table)


def _level(level: float) -> str:
    names = {0.0: "lowest", 0.5: "median", 1.0: "highest"}
    return names.get(level, f"{100 * level:g}%")


def protocol(entries: Sequence[Entry]) -> Markup:
    """Everything the results say about how they were measured."""
    columns = []
    for entry in entries:
        values = {key.replace("_", " "): _protocol_value(v) for key, v in entry.protocol.items()}
        evaluation = next((run.evaluation for run in entry.runs if run.evaluation), None)
        timing = evaluation.timing.items() if evaluation else ()
        values |= {f"timing: {key.replace('_', ' ')}": plain(v) for key, v in timing}
        if values:
            columns.append((entry.name, values))
    if not columns:
        return section(
            "protocol", "Protocol", gap("No evaluation has been made, so there is none.")
        )
    if len(columns) == 1:
        body = definition_list(list(columns[0][1].items()))
    else:
        body = _comparison(columns, "Protocols")
    note = tag(
        "p", "Intervals are 95% bootstrap intervals of the mean, over episodes for one training seed "
        "and over the seeds' means for several.", class_="fine",
    )  # fmt: skip
    return section("protocol", "Protocol", body, note)


def _protocol_value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(
            asked(v) if v is None or finite(v) is not None else plain(v) for v in value
        )
    return plain(value)


def gaps(entries: Sequence[Entry]) -> Markup | None:
    """Files that were missing or broken."""
    lines = [tag("li", f"{entry.name}: {text}") for entry in entries for text in entry.gaps]
    return section("missing", "What is missing", tag("ul", lines)) if lines else None
