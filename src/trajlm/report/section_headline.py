"""The top of the page, the videos, and what was run."""

from __future__ import annotations

from collections.abc import Sequence

from trajlm.report.elements import comparison, definition_list, gap, scroll, section
from trajlm.report.facts import algorithm, commands, environment, facts, missing_evaluation
from trajlm.report.films import film
from trajlm.report.formatting import finite, score
from trajlm.report.html import Markup, join, tag
from trajlm.report.readings import best_return, headline_row, obedience, sentence
from trajlm.report.records import VIDEO_TYPES, Entry, Row

MAX_CONFIG_LENGTH = 100_000


def headline(entries: Sequence[Entry], *, title: str) -> Markup:
    """Title, the sentence that says how it went, and the video of a single run."""
    alone = len(entries) == 1
    words = [tag("h1", title), *(_lede(entry, alone=alone) for entry in entries)]
    if not alone:
        return tag("header", words, class_="hero")
    return tag("header", tag("div", words), video(entries[0]), class_="hero with-video")


def _lede(entry: Entry, *, alone: bool) -> Markup:
    row = headline_row(entry.rows, best=best_return(entry.dataset))
    text = missing_evaluation(entry.runs[0] if entry.runs else None)
    if row is not None:
        said = sentence(row)
        text = f"{said[0].upper()}{said[1:]}."
    if not alone:
        return tag("p", tag("strong", entry.name), f": {text}", class_="lede small")
    more = " ".join(filter(None, [_on_the_scale(row), obedience(entry.rows)]))
    return join(tag("p", text, class_="lede"), tag("p", more) if more else None)


def _on_the_scale(row: Row | None) -> str | None:
    """The dataset score in words, else the D4RL score, else nothing."""
    if row is None:
        return None
    if finite(row.get("dataset_score")) is not None:
        reference = "the random and 100 the expert behaviour"
        return f"That is {score(row['dataset_score'])} where 0 is {reference}."
    if finite(row.get("d4rl_score")) is not None:
        return f"That is a D4RL score of {score(row['d4rl_score'])}."
    return None


def what_was_run(entries: Sequence[Entry]) -> Markup:
    """Facts, and the commands that repeat them."""
    if len(entries) == 1:
        body = join(definition_list(facts(entries[0])), tag("h3", "Repeat it"), _repeat(entries[0]))
        return section("run", "What was run", body)
    columns = [(entry.name, dict(facts(entry))) for entry in entries]
    blocks = [
        tag("details", tag("summary", f"Repeat {entry.name}"), _repeat(entry)) for entry in entries
    ]
    return section("run", "What was run", comparison(columns, caption="What was run"), *blocks)


def _repeat(entry: Entry) -> Markup:
    """The commands, and the whole configuration folded away."""
    script = "\n".join(f"# {purpose}\n{line}" for purpose, line in commands(entry))
    shown = scroll("Commands", tag("pre", tag("code", script)))
    text = next((run.config_text for run in entry.runs if run.config_text), "")
    if not text:
        return shown
    settings = scroll("run.yaml", tag("pre", tag("code", text[:MAX_CONFIG_LENGTH])))
    return join(shown, tag("details", tag("summary", "Every setting (run.yaml)"), settings))


def videos(entries: Sequence[Entry]) -> Markup | None:
    """All videos of a comparison; a single run's stands in the headline."""
    if len(entries) == 1:
        return None
    return section("videos", "Videos", tag("div", map(video, entries), class_="videos"))


def video(entry: Entry) -> Markup:
    """The run's video inside the page, or why it is not there."""
    found = next((run.videos for run in entry.runs if run.videos), ())
    place = f"{entry.folder.parent.name}/{entry.folder.name}"
    if not found:
        if not entry.rows:
            return gap(f"{entry.name} has no video, as it has not been evaluated.")
        return gap(f"{entry.name} has no video. 'trajlm evaluate {place}' records one.")
    kinds = list(VIDEO_TYPES)
    path = min(found, key=lambda p: (kinds.index(p.suffix.lower()), p.name))
    caption = f"{entry.name} in {environment(entry)}. Each picture says what was asked for."
    label = f"{algorithm(entry)} in {environment(entry)}: one episode of {entry.name}"
    return film(path, label=label, caption=caption)
