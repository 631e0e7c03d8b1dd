"""How long-horizon is drawn: bodies from left to right, a row each, and curves over the horizon.

Everything comes from results.json; bodies are outlines of limbs, already in metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajlm.evaluation.physics import Physics

PANELS = 7
APART, ROW = 1.9, 1.95
"""Metres between two bodies, and between two rows."""
TALLEST = 3.0
PANEL, GAP = (180, 140), 6
"""Of a rendered body: its picture's width and height, and the line between two bodies."""
STRIDE, FILM_RATE = 2, 12.0
"""Of the film: steps from one picture to the next, and pictures a second."""
LABELS = {
    "error": "deviations",
    "log_likelihood": "nats a dimension",
    "plausible": "% of bodies",
}


def poses(physics: Physics, observations: Sequence[Sequence[float]]) -> list[Any]:
    """For each of `PANELS` moments of (H + 1, O) the limbs' outlines, x counted from the body; None
    where there is no body to draw."""
    body = physics.body
    found: list[Any] = []
    for moment in moments(len(observations)):
        row = np.asarray(observations[moment])
        if not np.isfinite(row).all() or np.abs(row[: body.seen]).max() > TALLEST * 2:
            found.append(None)
            continue
        limbs = body.outline(body.pose(*body.state(row)))
        found.append([[round(value, 3) for value in limb] for limb in limbs])
    return found


def moments(count: int) -> list[int]:
    """Steps from the first to the last, evenly."""
    return [round(step) for step in np.linspace(0, count - 1, min(PANELS, count))]


def draw_strip(
    axes: Axes, rows: Sequence[tuple[str, Sequence[Any]]], *, colors: Sequence[Any], title: str,
    steps: Sequence[int],
) -> None:  # fmt: skip
    """Rows of (name, poses) under each other, the steps above them."""
    from matplotlib.patches import Polygon

    for number, (name, row) in enumerate(rows):
        ground = -ROW * number
        axes.axhline(ground, color=picture.GRID, linewidth=1)
        axes.text(-0.95, ground + 0.75, name, ha="right", va="center", fontsize=8)
        for column, limbs in enumerate(row):
            if limbs is None:
                axes.text(APART * column, ground + 0.6, "no body", ha="center", fontsize=7)
                continue
            for limb, color in zip(limbs, colors, strict=True):
                outline = capsule_outline(*limb) + np.array([APART * column, ground])
                axes.add_patch(Polygon(outline, facecolor=color, edgecolor="none"))
    for column, step in enumerate(steps):
        axes.text(APART * column, ROW - 0.2, f"+{step}", ha="center", va="bottom", fontsize=8)
    axes.set(
        xlim=(-APART * 0.5, APART * (PANELS - 0.5)), ylim=(-ROW * (len(rows) - 1) - 0.15, ROW + 0.1)
    )
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title)


def capsule_outline(
    x: float, z: float, other_x: float, other_z: float, radius: float
) -> np.ndarray:
    """Corners (K, 2) of a limb seen from the side."""
    angle = np.arctan2(other_z - z, other_x - x)
    half = np.linspace(-np.pi / 2, np.pi / 2, 9)
    ends = [(other_x, other_z, half), (x, z, half + np.pi)]
    return np.concatenate(
        [
            np.stack([a + radius * np.cos(angle + turn), b + radius * np.sin(angle + turn)], axis=1)
            for a, b, turn in ends
        ]
    )


def draw_curves(
    axes: Axes,
    measure: str,
    curves: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
    *,
    methods: Sequence[str],
    references: Sequence[tuple[str, Mapping[str, Sequence[float]]]] = (),
    title: str,
) -> None:
    """Values over steps with their intervals, in the colours of `methods`; `references` are dashed,
    in grey."""
    factor = 100.0 if measure == "plausible" else 1.0
    for name, curve in curves:
        color = picture.SERIES[methods.index(name) % len(picture.SERIES)]
        _draw(axes, curve, factor, name, color=color, line="-")
    for number, (name, curve) in enumerate(references):
        line = picture.DASHES[1 + number % 3]
        _draw(axes, curve, factor, name, color=picture.MUTED, line=line)
    if measure == "plausible":
        axes.set_ylim(-3, 103)
    if measure == "error":
        highest = max((max(curve["high"]) for _, curve in (*curves, *references)), default=1.0)
        axes.set_ylim(0, min(3.0, 1.15 * highest))
    if measure == "log_likelihood":
        axes.set_ylim(-8, 4)
    axes.set(title=title, ylabel=LABELS[measure])


def _draw(
    axes: Axes, curve: Mapping[str, Sequence[float]], factor: float, name: str, *, color: str,
    line: Any,
) -> None:  # fmt: skip
    steps = np.arange(1, len(curve["value"]) + 1)
    axes.plot(steps, factor * np.asarray(curve["value"]), linestyle=line, color=color, label=name)
    low, high = (factor * np.asarray(curve[end]) for end in ("low", "high"))
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
    from PIL import Image

    lines = []
    for env_id, shown in bodies.items():
        found = _rendered(env_id, shown, rows, None)
        if found is None:
            return None
        lines += [np.concatenate(row, axis=1) for row in found]
        lines.append(np.full((GAP, lines[-1].shape[1], 3), 255, np.uint8))
    picture = Image.fromarray(np.concatenate(lines[:-1]))
    picture.quantize(128).save(path, optimize=True)
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
