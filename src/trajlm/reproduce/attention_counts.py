"""How often the patterns of attention occur: rows, tables and the sentence about them.

A reading is what `attention_maps.read` says of one training; readings are those of a recipe's seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trajlm.evaluation.scores import bootstrap_interval
from trajlm.reproduce import attention_patterns as patterns
from trajlm.reproduce.attention_patterns import PATTERNS, PLANNER
from trajlm.reproduce.base import Table
from trajlm.reproduce.taking_part import algorithm_title

Readings = Mapping[str, Sequence[Mapping[str, Any]]]


def row_of(
    recipe: str, readings: Sequence[Mapping[str, Any]], pattern: str, layer: int | None
) -> dict[str, Any]:
    """How often a pattern occurs among the heads of a layer (None: of all): each seed's share of
    heads, the mean over seeds and its interval; beside it the mean and the highest score."""
    chosen = [
        [head for head in each["heads"] if layer in (None, head["layer"])] for each in readings
    ]
    even = readings[0]["even"]
    found = [
        [patterns.occurs(head["trained"], even)[pattern] for head in heads] for heads in chosen
    ]
    shares = [sum(each) / len(each) for each in found]
    scores = [head["trained"][pattern] for heads in chosen for head in heads]
    untrained = [head["untrained"][pattern] for heads in chosen for head in heads]
    return {
        "recipe": recipe,
        "pattern": pattern,
        "layer": layer,
        "heads": sum(map(len, found)),
        "with_pattern": sum(map(sum, found)),
        "seeds": shares,
        "mean": sum(shares) / len(shares),
        "interval": bootstrap_interval(shares),
        "score_mean": sum(scores) / len(scores),
        "score_highest": max(scores),
        "untrained_highest": max(untrained),
        "even": even[pattern],
        "threshold": patterns.threshold(pattern, even),
    }


def occurrences(readings: Readings, rows: Sequence[Mapping[str, Any]], *, seeds: int) -> Table:
    lines = []
    for recipe, each in readings.items():
        layers = sorted({head["layer"] for head in each[0]["heads"]})
        for layer in (None, *layers):
            own = [row for row in rows if row["recipe"] == recipe and row["layer"] == layer]
            even = each[0]["even"][patterns.AHEAD]
            ahead = [
                head["trained"][patterns.AHEAD]
                for reading in each
                for head in reading["heads"]
                if layer in (None, head["layer"])
            ]
            lines.append(
                (
                    algorithm_title(recipe), "all" if layer is None else str(layer),
                    *(f"{row['with_pattern']} of {row['heads']}" for row in own),
                    f"{sum(ahead) / len(ahead):.2f}, {max(ahead):.2f}, {even:.2f}",
                )
            )  # fmt: skip
    return Table(
        title="Heads that show a pattern",
        columns=("model", "layer", *PATTERNS, "past actions over states"),
        lines=tuple(lines),
        note=(
            f"Training seeds: {seeds}; a head may show several. Markovian: most of its attention is on this "
            "step and the one before. Striated: rows that predict states look at the same dimension two "
            "or more steps before; action-smoothing: rows that predict actions at the same one at any "
            f"earlier step. Each is counted from {patterns.CLEARLY:g} times what a head has that looks "
            "evenly. Last column: of what rows that predict actions pay to earlier actions and states, the "
            "actions' share, its mean, highest and that of an even head. A Decision Transformer predicts "
            "actions alone: its stripe of states is that of state tokens at earlier state tokens"
        ),
    )


def scores_table(readings: Readings) -> Table:
    lines = []
    for recipe, each in readings.items():
        heads = [head for reading in each for head in reading["heads"]]
        for pattern in PATTERNS:
            trained = [head["trained"][pattern] for head in heads]
            untrained = [head["untrained"][pattern] for head in heads]
            even = each[0]["even"]
            lines.append(
                (
                    algorithm_title(recipe), pattern, f"{even[pattern]:.3f}",
                    f"{min(untrained):.3f} to {max(untrained):.3f}",
                    f"{patterns.threshold(pattern, even):.3f}",
                    f"{sum(trained) / len(trained):.3f}", f"{max(trained):.3f}",
                )
            )  # fmt: skip
    return Table(
        title="Scores: shares of attention",
        columns=("model", "pattern", "even head", "untrained", "threshold", "mean", "highest"),
        lines=tuple(lines),
        note=(
            "Counted in the second half of a window, mean attention over "
            f"{next(iter(readings.values()))[0]['windows']} windows of held-out episodes. Untrained heads "
            f"lie within {_furthest(readings):.0%} of an even one, so what is above a threshold was learned"
        ),
    )


def verdict(readings: Readings, rows: Sequence[Mapping[str, Any]], *, seeds: int) -> str:
    """Counts of heads for each model, where they lie, and what a reader should take from it."""
    told = []
    for recipe in readings:
        own = {row["pattern"]: row for row in rows if row["recipe"] == recipe and not row["layer"]}
        by_layer = {
            (row["pattern"], row["layer"]): row["with_pattern"]
            for row in rows
            if row["recipe"] == recipe and row["layer"]
        }
        parts = [
            f"{row['with_pattern']} {pattern}"
            + _places({layer: n for (name, layer), n in by_layer.items() if name == pattern})
            for pattern, row in own.items()
        ]
        told.append(
            f"of {own[PATTERNS[0]]['heads']} heads of the {algorithm_title(recipe)} "
            + ", ".join(parts)
        )
    text = "; ".join(told)
    return f"Over {seeds} seeds, {text}. {_taken(rows)}"


def _places(counts: Mapping[int, int]) -> str:
    """In which layers heads lie."""
    if not any(counts.values()):
        return ""
    return f" ({'/'.join(str(counts[layer]) for layer in sorted(counts))} by layer)"


def _furthest(readings: Readings) -> float:
    """How far an untrained head's score lies from an even head's at most, as a share of it."""
    return max(
        abs(float(head["untrained"][pattern]) / float(reading["even"][pattern]) - 1.0)
        for each in readings.values()
        for reading in each
        for head in reading["heads"]
        for pattern in PATTERNS
    )


def _taken(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence to take away, from what was found of the planner."""
    found = {
        row["pattern"]: row["with_pattern"]
        for row in rows
        if row["recipe"].split("/")[0] == PLANNER and row["layer"] is None
    }
    there = [pattern for pattern in PATTERNS if found.get(pattern)]
    missing = [pattern for pattern in PATTERNS if not found.get(pattern)]
    if not there:
        return "What to take from it: no published pattern was found by its score."
    return (
        f"What to take from it: {', '.join(there)} heads come about by training alone, since an "
        "untrained head looks evenly"
        + (f"; no {' or '.join(missing)} one was found." if missing else ".")
    )
