"""How long-horizon is drawn: bodies from left to right, a row each, and curves over the horizon.

Everything comes from results.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.core.files import replace_file
from trajlm.reproduce import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


PANELS = 7
PANEL, GAP = (180, 140), 6
"""Of a rendered body: its picture's width and height, and the line between two bodies."""
POINTS = 33
"""How many of its steps a curve is drawn at."""
STRIDE, FILM_RATE = 2, 12.0
"""Of the film: steps from one picture to the next, and pictures a second."""
LABELS = {
    "error": "deviations",
    "log_likelihood": "nats a dimension",
    "plausible": "% of bodies",
}


def moments(count: int) -> list[int]:
    """Steps from the first to the last, evenly."""
    return [round(step) for step in np.linspace(0, count - 1, min(PANELS, count))]


def draw_curves(
    axes: Axes,
    measure: str,
    curves: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
    *,
    methods: Sequence[str],
    reference: Mapping[str, Sequence[float]] | None,
    title: str,
) -> None:
    """Values over steps with their intervals, in the colours of `methods`; `reference` is dashed, in
    grey."""
    factor = 100.0 if measure == "plausible" else 1.0
    for name, curve in curves:
        color = picture.SERIES[methods.index(name) % len(picture.SERIES)]
        _draw(axes, curve, factor, color=color, line="-")
    if reference is not None:
        _draw(axes, reference, factor, color=picture.MUTED, line=picture.DASHES[1])
    if measure == "plausible":
        axes.set_ylim(-3, 103)
    if measure == "error":
        highest = max(max(curve["high"]) for _, curve in curves)
        axes.set_ylim(0, min(3.0, 1.15 * highest))
    if measure == "log_likelihood":
        axes.set_ylim(-8, 4)
    axes.set(title=title, ylabel=LABELS[measure])


def marks(methods: Sequence[str]) -> tuple[list[Any], list[str]]:
    """What a legend shows: the methods' lines, and that of the reference."""
    colors = [(picture.SERIES[n % len(picture.SERIES)], "-") for n in range(len(methods))]
    return picture.lines(*colors, (picture.MUTED, picture.DASHES[1])), [*methods, "the truth"]


def _draw(
    axes: Axes, curve: Mapping[str, Sequence[float]], factor: float, *, color: str, line: Any
) -> None:
    """At about `POINTS` steps."""
    apart = max(1, len(curve["value"]) // POINTS)
    steps = np.arange(len(curve["value"]), 0, -apart)[::-1]
    value, low, high = (
        factor * np.asarray(curve[end])[steps - 1] for end in ("value", "low", "high")
    )
    axes.plot(steps, value, linestyle=line, color=color)
    axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


Shown = Mapping[str, Mapping[str, Any]]
"""By environment, the shown window's observations (H + 1, O) by method."""
Rows = Sequence[tuple[str, str]]
"""Methods with their titles, from above."""


def write_film(bodies: Shown, path: Path, *, rows: Rows) -> Path | None:
    """A film at `path`, a body a column and a method a row; None where nothing can be drawn."""
    from trajlm.evaluation.video import write_film as write

    columns = []
    for env_id, shown in bodies.items():
        found = _rendered(env_id, shown, rows, STRIDE)
        if found is None:
            return None
        columns.append([np.concatenate(each) for each in zip(*found, strict=True)])
    frames = (np.concatenate(each, axis=1) for each in zip(*columns, strict=True))
    return write(frames, path, frames_per_second=FILM_RATE)


def write_strip(bodies: Shown, path: Path, *, rows: Rows) -> Path | None:
    """A PNG at `path`: of each body `PANELS` moments from left to right, a method a row; None where
    nothing can be drawn."""
    from trajlm.evaluation.drawing import png_in_few_colors

    lines = []
    for env_id, shown in bodies.items():
        found = _rendered(env_id, shown, rows, None)
        if found is None:
            return None
        lines += [np.concatenate(row, axis=1) for row in found]
        lines.append(np.full((GAP, lines[-1].shape[1], 3), 255, np.uint8))
    replace_file(path, png_in_few_colors(np.concatenate(lines[:-1])))
    return path


def _rendered(
    env_id: str, shown: Mapping[str, Any], rows: Rows, stride: int | None
) -> list[list[np.ndarray]] | None:
    """For each row its pictures (H, W, 3), `stride` steps apart, or at `moments`; the view follows
    each body. None where it cannot be drawn."""
    from trajlm.evaluation.drawing import write_texts
    from trajlm.evaluation.physics import LARGEST, Physics

    physics = Physics(env_id)
    physics.close()
    renderer = physics.body.renderer(PANEL)
    if renderer is None:
        return None
    found = []
    for method, title in rows:
        observed = np.clip(np.asarray(shown[method], np.float64), -LARGEST, LARGEST)
        poses = physics.body.poses(observed, x=0.0)
        steps = moments(len(poses)) if stride is None else range(0, len(poses), stride)
        named = [title if stride or not step else "" for step in steps]
        found.append(
            [
                write_texts(renderer.picture(poses[step]), name, "", f"+{step}")
                for step, name in zip(steps, named, strict=True)
            ]
        )
    renderer.close()
    return found
