"""Attention as plain data: of a run, with its scores; and the pictures of it.

Legend: H heads, Q rows (tokens that predict), L tokens.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce import attention_patterns as patterns
from trajlm.reproduce import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

TITLE_WIDTH = 22
UNIT = 10_000
"""Maps are kept in ten thousandths."""
SHORT = {"observation": "obs", "action": "act", "reward": "rew", "value": "val", "return": "ret"}


def read(folder: Path, *, algorithm: str, windows: int, shown: int) -> dict[str, Any]:
    """The scores of every head of a run, as trained and before, and its maps over the first `shown`
    steps of a window, a list of rows a head, each up to the token it belongs to."""
    from trajlm.runs.attention import run_attention

    found = run_attention(folder, windows=windows)
    tokens = patterns.tokens_of(found.model, algorithm=algorithm)
    heads = []
    for layer, (trained, untrained) in enumerate(zip(found.trained, found.untrained, strict=True)):
        pairs = zip(
            patterns.predicting(trained, tokens),
            patterns.predicting(untrained, tokens),
            strict=True,
        )
        for head, (after, before) in enumerate(pairs):
            heads.append(
                {
                    "layer": layer + 1,
                    "head": head + 1,
                    "trained": patterns.scores(after, tokens),
                    "untrained": patterns.scores(before, tokens),
                    "map": cut(after, tokens, steps=shown),
                }
            )
    return {
        "heads": heads,
        "even": patterns.even_scores(tokens),
        "names": [short(name) for name in tokens.names],
        "kinds": list(tokens.kinds),
        "steps": tokens.steps,
        "shown": min(shown, tokens.steps),
        "rows": tokens.rows[tokens.time(tokens.rows) < shown].tolist(),
        "windows": found.windows,
    }


def cut(rows: np.ndarray, tokens: patterns.Tokens, *, steps: int) -> list[list[int]]:
    """The rows of the first `steps` steps, each up to its own token, in units of 1 / `UNIT`."""
    kept = tokens.time(tokens.rows) < steps
    return [
        np.rint(UNIT * row[: position + 1]).astype(int).tolist()
        for row, position in zip(rows[kept], tokens.rows[kept], strict=True)
    ]


def whole(kept: Sequence[Sequence[int]]) -> np.ndarray:
    """The map (Q, L) of such rows, NaN where a row does not look."""
    full = np.full((len(kept), max(map(len, kept))), np.nan)
    for row, values in zip(full, kept, strict=True):
        row[: len(values)] = np.array(values) / UNIT
    return full


def short(name: str) -> str:
    """`observation 3` as `obs 3`."""
    first, _, number = name.partition(" ")
    return f"{SHORT.get(first, first)} {number}".strip()


# ---- the pictures -------------------------------------------------------------------------------


def draw_heads(figure: FigureBase, reading: Mapping[str, Any], *, title: str) -> None:
    """Every head's map: rows predict, columns are looked at; a line where a step begins."""
    heads = reading["heads"]
    columns = len(heads) if len(heads) <= 6 else max(head["head"] for head in heads)
    grid = figure.subplots(
        -(-len(heads) // columns), columns, squeeze=False, sharex=True, sharey=True
    )
    top = brightest([head["map"] for head in heads])
    size, shown = len(reading["names"]), reading["shown"]
    for axes, head in zip(grid.flat, heads, strict=True):
        draw_map(axes, whole(head["map"]), top=top)
        axes.set_title(
            f"layer {head['layer']}, head {head['head']}\n{told(head, reading)}",
            fontsize=8,
            pad=12 if size <= 4 else None,
        )
        mark_steps(axes, size=size, steps=shown, names=reading["names"] if size <= 4 else ())
        times = [(row + 1) // size for row in reading["rows"]]
        starts = [times.index(step) for step in range(shown)]
        axes.set_yticks([start - 0.5 for start in starts], [str(step) for step in range(shown)])
    for axes in grid[-1] if size > 4 else ():
        axes.set_xlabel("step looked at")
    for axes in grid[:, 0]:
        axes.set_ylabel("step predicted")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def best_heads(reading: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """For each pattern the head with the highest score, each head once: the rarest pattern chooses
    first."""
    left, found = list(reading["heads"]), {}
    for pattern in patterns.STRIPES_FIRST:
        best = max(left, key=lambda head: head["trained"][pattern])
        found[pattern] = best
        left = [head for head in left if head is not best] or left
    return {pattern: found[pattern] for pattern in patterns.PATTERNS}


def draw_closely(axes: Axes, reading: Mapping[str, Any], pattern: str) -> None:
    """The rows of the last step shown of the best head of a pattern, dimension by dimension."""
    best = best_heads(reading)[pattern]
    names, size = reading["names"], len(reading["names"])
    last = [
        place
        for place, row in enumerate(reading["rows"])
        if (row + 1) // size == reading["shown"] - 1
    ]
    values = whole(best["map"])[last]
    predicted = [names[(reading["rows"][place] + 1) % size] for place in last]
    draw_map(axes, values, top=float(np.nanquantile(values, 0.995)))
    mark_steps(axes, size=size, steps=reading["shown"], names=names)
    axes.set_yticks(range(len(last)), predicted, fontsize=6)
    axes.set_title(
        f"{pattern}, layer {best['layer']}, head {best['head']}:\n"
        f"score {best['trained'][pattern]:.2f}, even head {reading['even'][pattern]:.2f}",
        fontsize=9,
        pad=12,
    )
    axes.set_ylabel(f"predicted at step {reading['shown'] - 1}", fontsize=8)


def draw_map(axes: Axes, values: np.ndarray, *, top: float) -> None:
    """(Q, L) as shades, by the square root of attention so that little of it is seen too."""
    from matplotlib.colors import PowerNorm

    axes.imshow(
        values, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=top), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.grid(visible=False)


def mark_steps(axes: Axes, *, size: int, steps: int, names: Sequence[str] = ()) -> None:
    """Lines where a step begins; with `names`, the groups of its tokens below."""
    for step in range(1, steps):
        axes.axvline(step * size - 0.5, color=picture.DATA, linewidth=0.6)
    if not names:
        axes.set_xticks(
            [step * size - 0.5 for step in range(steps)], [str(s) for s in range(steps)]
        )
        return
    groups = [name.partition(" ")[0] for name in names]
    if size > 4:  # too narrow for a label each
        groups = [group if groups.count(group) > 1 else "rew, val" for group in groups]
    places = {group: groups.index(group) + (groups.count(group) - 1) / 2 for group in groups}
    ticks = [(step * size + at, group) for step in range(steps) for group, at in places.items()]
    axes.set_xticks([at for at, _ in ticks], [group for _, group in ticks], rotation=90, fontsize=5)
    axes.set_xlabel("")
    for step in range(steps):
        axes.text(
            (step + 0.5) * size - 0.5, 1.01, f"step {step}", transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=6, color=picture.MUTED,
        )  # fmt: skip


def draw_scores(axes: Axes, readings: Sequence[Mapping[str, Any]], pattern: str) -> None:
    """A pattern's score of every head of every seed, by layer; untrained heads as hollow marks."""
    even = readings[0]["even"]
    layers = max(head["layer"] for head in readings[0]["heads"])
    for place, reading in enumerate(readings):
        aside = 0.16 * (place - (len(readings) - 1) / 2)
        x = [head["layer"] + aside for head in reading["heads"]]
        colour, marker = picture.SERIES[place % 7], picture.MARKERS[place % 7]
        axes.plot(
            x, [head["untrained"][pattern] for head in reading["heads"]], marker, color=picture.MUTED,
            markerfacecolor="none", markersize=4,
        )  # fmt: skip
        axes.plot(
            x, [head["trained"][pattern] for head in reading["heads"]], marker, color=colour,
            markersize=5,
        )  # fmt: skip
    bar = patterns.threshold(pattern, even)
    axes.axhline(bar, color=picture.INK, linestyle="--", linewidth=1)
    axes.axhline(even[pattern], color=picture.MUTED, linewidth=1)
    highest = max(head["trained"][pattern] for reading in readings for head in reading["heads"])
    axes.set(xlim=(0.5, layers + 0.5), ylim=(0, 1.15 * max(highest, bar)))
    axes.set_xticks(range(1, layers + 1))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("layer")
    axes.set_title(pattern, fontsize=9)


def legend(figure: FigureBase, *, seeds: int) -> None:
    """What the marks and lines of `draw_scores` are."""
    from matplotlib.lines import Line2D

    marks: list[Any] = [
        Line2D([], [], color=picture.SERIES[n % 7], marker=picture.MARKERS[n % 7], linestyle="")
        for n in range(seeds)
    ]
    marks.append(
        Line2D([], [], color=picture.MUTED, marker="o", markerfacecolor="none", linestyle="")
    )
    marks += picture.lines((picture.MUTED, "-"), (picture.INK, "--"))
    names = [*(f"a head of seed {n}" for n in range(seeds)), "untrained", "even head", "threshold"]
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=8)


def brightest(maps: Sequence[Sequence[Sequence[int]]]) -> float:
    """What the darkest shade stands for: more than all but a two-hundredth of what is seen, without
    the first step's, which has little to choose from."""
    late = [value for each in maps for row in each[len(each) // 4 :] for value in row]
    return float(np.quantile(late, 0.995)) / UNIT


def told(head: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    """The patterns of a head, in words."""
    found = patterns.occurs(head["trained"], reading["even"])
    text = ", ".join(name for name, shown in found.items() if shown) or "-"
    return textwrap.fill(text, TITLE_WIDTH, break_on_hyphens=False)
