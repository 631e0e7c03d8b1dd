"""What a model that predicts returns makes of Key-to-Door: events, predictions and attention.

Legend: E episodes, T = 24 steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce import picture
from trajlm.reproduce.base import Table
from trajlm.reproduce.context import Context
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajlm.core.trajectory import Trajectory

ENV_ID = "trajlm/KeyToDoor-v0"
PROBE_SEED = 500_000
"""Probes begin far behind the walks of any dataset."""
ROOM_STEPS = 8
KINDS = {
    "key, then door": (True, True),
    "no key, but door": (False, True),
    "key, but no door": (True, False),
}


def walk(generator: np.random.Generator, observation: Any) -> int:
    """A random walk: actions drawn evenly."""
    return int(generator.integers(4))


def fresh_walks(count: int) -> list[tuple[Trajectory, list[dict[str, Any]]]]:
    """Random walks with the `info` of their steps, none of them in a dataset."""
    from trajlm.collect.walks import episodes

    return list(episodes(walk, env_id=ENV_ID, count=count, seed=PROBE_SEED))


def reading(context: Context, cell: Cell, *, probes: int) -> dict[str, Any] | None:
    """What the model of `cell` foretells of fresh walks; None where it foretells nothing."""
    if not getattr(resolve(cell.arguments[0]).model, "predict_returns", False):
        return None
    found: dict[str, Any] = context.part("critic", lambda: read(context, cell, probes))
    return found


def read(context: Context, cell: Cell, probes: int) -> dict[str, Any]:
    """The critic's numbers over `probes` walks, and three walks step by step, as plain JSON."""
    walks = fresh_walks(probes)
    keys, doors = (np.array([event(infos, name) for _, infos in walks]) for name in ("key", "door"))
    foretold, attention = foretell(context, cell, [trajectory for trajectory, _ in walks])
    after_key = {step: foretold[keys == step][:, step + 1] for step in range(ROOM_STEPS - 1)}
    before_key = {step: foretold[keys == step][:, step] for step in range(ROOM_STEPS - 1)}
    in_time = (doors >= 2 * ROOM_STEPS) & (doors < 3 * ROOM_STEPS - 1)
    both, only = in_time & (keys >= 0), in_time & (keys < 0)
    returns = np.array([trajectory.episode_return for trajectory, _ in walks])
    numbers = {
        "start": mean(foretold[:, 0]),
        "true_start": mean(returns),
        "before_key": mean(np.concatenate(list(before_key.values()))),
        "after_key": mean(np.concatenate(list(after_key.values()))),
        "true_after_key": mean(returns[keys >= 0]),
        "before_door": mean(foretold[both, doors[both]]),
        "end_with_key": mean(foretold[both, -1]),
        "end_without_key": mean(foretold[only, -1]),
    }
    share = np.array([attention[e, [keys[e], doors[e]]] for e in np.flatnonzero(both)])
    steps = attention.shape[1]
    numbers["attention_key"] = mean(share[:, 0] * steps) if len(share) else None
    numbers["attention_door"] = mean(share[:, 1] * steps) if len(share) else None
    return {
        "recipe": cell.arguments[0],
        "probes": probes,
        "numbers": numbers,
        "sentence": sentence(numbers),
        "examples": examples(foretold, keys, doors),
        "attention": example_attention(attention, keys, doors),
    }


def event(infos: Sequence[Mapping[str, Any]], name: str) -> int:
    """The step whose action brought `name` about, -1 where none did."""
    return next((step for step, info in enumerate(infos[1:]) if info[name]), -1)


def foretell(
    context: Context, cell: Cell, trajectories: Sequence[Trajectory]
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted returns (E, T), and the last step's attention to each step (E, T), which sums to 1:
    the mean over layers and heads, a step's three tokens together."""
    import torch

    from trajlm.nn.attention_maps import recorded_attention
    from trajlm.training.checkpoint import artefact_folder, load_artefact

    model: Any = load_artefact(artefact_folder(context.run_of(cell), which="last")).eval()
    columns = {
        name: torch.from_numpy(np.stack([t.columns[name][: len(t)] for t in trajectories]))
        for name in ("observations", "actions")
    }
    count, steps = columns["actions"].shape[:2]
    returns, looked = np.zeros((count, steps)), np.zeros((count, steps))
    for first in range(0, count, 100):
        part = slice(first, min(first + 100, count))
        with recorded_attention(model) as maps:
            returns[part] = model.foretell(
                observations=columns["observations"][part],
                actions=columns["actions"][part],
                timesteps=torch.arange(steps).expand(part.stop - first, -1),
            )
        # The last state token: the second from the end, or the last where states alone are asked for.
        rows = [layer[:, :, -2 if layer.shape[2] == 3 * steps else -1].mean(1) for layer in maps]
        looked[part] = torch.stack(rows).mean(0).unflatten(-1, (steps, 3)).sum(-1)
    return returns, looked


def examples(foretold: np.ndarray, keys: np.ndarray, doors: np.ndarray) -> list[dict[str, Any]]:
    """One walk of each kind: the first whose events lie well inside their rooms."""
    found = []
    for name, (key, door) in KINDS.items():
        fits = (keys >= 2) & (keys <= 5) if key else keys < 0
        fits &= (doors >= 18) & (doors <= 21) if door else doors < 0
        for episode in np.flatnonzero(fits)[:1]:
            own = {"name": name, "key": int(keys[episode]), "door": int(doors[episode])}
            found.append({**own, "foretold": foretold[episode].round(4).tolist()})
    return found


def example_attention(
    attention: np.ndarray, keys: np.ndarray, doors: np.ndarray
) -> dict[str, Any] | None:
    """The attention of the walk that `examples` shows with key and door."""
    fits = (keys >= 2) & (keys <= 5) & (doors >= 18) & (doors <= 21)
    for episode in np.flatnonzero(fits)[:1]:
        shares = attention[episode].round(5).tolist()
        return {"key": int(keys[episode]), "door": int(doors[episode]), "shares": shares}
    return None


def mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def sentence(numbers: Mapping[str, float | None]) -> str:
    """What was found, in one sentence."""
    told = {name: "-" if value is None else f"{value:.2f}" for name, value in numbers.items()}
    return (
        f"As critic the transformer expects {told['start']} at the start, {told['after_key']} once it "
        f"has the key, {told['end_with_key']} past the door with it and {told['end_without_key']} "
        f"without; its last step looks at the key's step {told['attention_key']} times as much as "
        f"an even share, at the door's {told['attention_door']} times."
    )


def table(critic: Mapping[str, Any]) -> Table:
    numbers = critic["numbers"]
    names = {
        "start": "at the start", "true_start": "true mean return of these walks",
        "before_key": "at the step that takes the key", "after_key": "the step after it",
        "true_after_key": "true mean return of walks with the key",
        "before_door": "at the step that enters the door, with the key",
        "end_with_key": "at the last step, past the door with the key",
        "end_without_key": "at the last step, past the door without it",
    }  # fmt: skip
    shown = {
        text: "-" if numbers[name] is None else f"{numbers[name]:.3f}"
        for name, text in names.items()
    }
    return Table(
        title="The return expected along random walks",
        columns=("when", "expected"),
        lines=tuple(shown.items()),
        note=f"{critic['recipe']}, seed 0; {critic['probes']:,} walks that are not in the data",
    )


# ---- the pictures -------------------------------------------------------------------------------


def shade_rooms(axes: Axes) -> None:
    """The second room in grey, and the rooms' names."""
    axes.axvspan(ROOM_STEPS - 0.5, 2 * ROOM_STEPS - 0.5, color=picture.GRID, alpha=0.6, zorder=0)
    for room, name in enumerate(("key", "apples", "door")):
        axes.text(
            ROOM_STEPS * (room + 0.5) - 0.5, 1.0, f"room {room + 1}: {name}", ha="center", va="bottom",
            transform=axes.get_xaxis_transform(), color=picture.MUTED, fontsize=9,
        )  # fmt: skip
    axes.set_xlim(-0.5, 3 * ROOM_STEPS - 0.5)
    axes.set_xticks(range(0, 3 * ROOM_STEPS, 4))
    axes.set_xlabel("step")
    axes.grid(visible=False, axis="x")


def draw_foretold(axes: Axes, critic: Mapping[str, Any]) -> None:
    for place, example in enumerate(critic["examples"]):
        colour, values = picture.SERIES[place], example["foretold"]
        axes.plot(values, color=colour, linestyle=picture.DASHES[place], label=example["name"])
        for name, marker in (("key", "^"), ("door", "s")):
            step = example[name]
            if step >= 0:
                seen = min(step + 1, len(values) - 1)
                axes.plot(seen, values[seen], marker, color=colour, markersize=9)
    axes.plot([], [], "^", color=picture.MUTED, markersize=9, label="has taken the key")
    axes.plot([], [], "s", color=picture.MUTED, markersize=9, label="has entered the door")
    shade_rooms(axes)
    axes.set_ylim(-0.04, 1.04)
    axes.set_ylabel("return expected")
    axes.set_title("What the model expects of three random walks", pad=20)
    axes.legend(loc="upper left", fontsize=9)


def draw_attention(axes: Axes, critic: Mapping[str, Any]) -> None:
    found = critic["attention"]
    if found is None:
        axes.text(0.5, 0.5, "no such walk among the probes", ha="center", transform=axes.transAxes)
        return
    shares = 100.0 * np.array(found["shares"])
    colours = [picture.DATA] * len(shares)
    for name, place in (("key", 0), ("door", 2)):
        colours[found[name]] = picture.SERIES[place]
    axes.bar(range(len(shares)), shares, color=colours)
    for name, text in (("key", "takes\nthe key"), ("door", "enters\nthe door")):
        axes.annotate(
            text, (found[name], shares[found[name]]), xytext=(found[name], 1.06 * shares.max()),
            ha="center", va="bottom",
            arrowprops={"arrowstyle": "->", "color": picture.MUTED, "linewidth": 0.8},
        )  # fmt: skip
    even = 100.0 / len(shares)
    axes.axhline(even, color=picture.MUTED, linestyle="--", label="an even share")
    shade_rooms(axes)
    axes.set_ylim(0, 1.3 * shares.max())
    axes.set_ylabel("attention, % of the last step's")
    axes.set_title("Where its last step looks: “key, then door”", pad=20)
    axes.legend(loc="upper center", fontsize=9)
