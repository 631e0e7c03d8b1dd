"""Achieved against asked return, for every body and tier: one figure of the table's models.

    python scripts/conditioning.py results/conditioning --runs runs/baselines

evaluates the Decision Transformers that `scripts/baselines.py` trained at eight quantiles of their
data's returns, and writes `rows.jsonl` (a line a model, with its command), `table.md`,
`conditioning.png` and `conditioning.svg`. A second call goes on where one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from baselines import BODIES, TIERS
from trajlm.evaluation.protocol import TRAINED, refuse_mixed
from trajlm.evaluation.scores import rank_correlation
from trajlm.runs.cells import KEPT, Cell, read_rows

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LEVELS = ("q5", "q20", "q35", "q50", "q65", "q80", "q95", "max")
NOTE = (
    "{updates:,} updates, {episodes} episodes a target and seed. Targets: the data's 5, 20, 35, 50, 65, "
    "80 and 95% quantiles and its best return, less those nearer than 1% of the range. Commands stand in "
    "rows.jsonl; all of them: `python scripts/conditioning.py results/conditioning`, after "
    "`scripts/baselines.py`, which trains the models."
)
BLUE, GREY, INK = "#0072b2", "#c9ced6", "#22262e"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    names = [
        ("DT", body, tier, str(seed))
        for body in BODIES
        for tier in TIERS
        for seed in range(asked.seeds)
    ]
    rows = {tuple(row["keys"]): row for row in read_rows(asked.folder / "rows.jsonl")}
    missing = [keys for keys in names if keys not in rows and is_finished(run_of(asked.runs, keys))]
    with ThreadPoolExecutor(asked.workers) as pool:
        for row in pool.map(lambda keys: evaluate(asked.runs, keys, asked.episodes), missing):
            rows[tuple(row["keys"])] = row
            with (asked.folder / "rows.jsonl").open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(row["keys"], [round(r["return_mean"]) for r in row["rows"]], flush=True)
    found = [rows[keys] for keys in names if keys in rows]
    (asked.folder / "table.md").write_text(table(found))
    draw(found, asked.folder)


def run_of(runs: Path, keys: Sequence[str]) -> Path:
    return runs / Cell(keys=tuple(keys), arguments=()).name


def is_finished(run: Path) -> bool:
    """Whether the run has made all its updates; one that is under way has an earlier model."""
    meta = run / "meta.json"
    return meta.is_file() and bool(json.loads(meta.read_text()).get("finished"))


def evaluate(runs: Path, keys: Sequence[str], episodes: int) -> dict[str, Any]:
    """One model at every level; targets that coincide are asked for once."""
    run = run_of(runs, keys)
    levels = distinct(json.loads((run / "dataset.json").read_text()))
    arguments = ["evaluate", str(run), "--policy.target-return", *levels]
    arguments += ["--episodes", str(episodes), "--threads", "1", "--evaluation.no-video"]
    output = run / "conditioning"
    arguments += ["--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "trajlm.cli.main", *arguments],
        check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{run}: {done.stderr[-500:]}")
    results = json.loads((output / "results.json").read_text())
    summary = json.loads((run / "dataset.json").read_text())
    return {
        "keys": list(keys),
        "command": shlex.join(["trajlm", *arguments]),
        "protocol": {key: results["protocol"].get(key) for key in KEPT},
        "rows": results["rows"],
        "histogram": summary["return_histogram"],
        "range": [summary["return_min"], summary["return_max"]],
    }


def distinct(summary: dict[str, Any]) -> list[str]:
    """The levels whose returns differ by a hundredth of the range or more."""
    pairs = {float(level): value for level, value in summary["return_quantiles"].items()}
    low, high = summary["return_min"], summary["return_max"]
    chosen: list[tuple[str, float]] = []
    for level in LEVELS:
        share = 1.0 if level == "max" else int(level[1:]) / 100
        at = float(np.interp(share, list(pairs), list(pairs.values())))
        if not chosen or at - chosen[-1][1] >= 0.01 * (high - low):
            chosen.append((level, at))
    return [level for level, _ in chosen]


def curve(rows: Sequence[dict[str, Any]]) -> tuple[list[float], np.ndarray]:
    """Targets (n,) and the mean return of each seed at each (R, n)."""
    names = ["-".join(row["keys"]) for row in rows]
    refuse_mixed([row["protocol"] for row in rows], names=names, fields=TRAINED)
    targets = [row["target_return"] for row in rows[0]["rows"]]
    return targets, np.array([[row["return_mean"] for row in each["rows"]] for each in rows])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """How far what was achieved lies from what was asked, and whether asking for more gives more."""
    lines = [
        "| data | seeds | asked for | achieved, mean over seeds | mean distance, share of the range | Spearman of the means |",
        "|---|---:|---|---|---:|---:|",
    ]
    for body in BODIES:
        for tier in TIERS:
            chosen = [row for row in rows if row["keys"][1:3] == [body, tier]]
            if not chosen:
                continue
            targets, means = curve(chosen)
            mean = means.mean(axis=0)
            low, high = chosen[0]["range"]
            distance = float(np.abs(means - np.array(targets)).mean() / (high - low))
            cells = [
                f"{body}/{tier}",
                str(len(chosen)),
                ", ".join(f"{value:,.0f}" for value in targets),
                ", ".join(f"{value:,.0f}" for value in mean),
                f"{distance:.2f}",
                f"{rank_correlation(targets, mean):.2f}" if len(targets) > 2 else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    if rows:
        first = rows[0]["protocol"]
        lines += ["", NOTE.format(updates=first["updates"], episodes=first["episodes"])]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """A panel for each body and tier: the curve above the histogram of the data's returns."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "trajlm", "axes.spines.top": False})
    figure = plt.figure(figsize=(11, 10.5), layout="constrained")
    grid = figure.subfigures(len(BODIES), len(TIERS))
    for line, body in enumerate(BODIES):
        for column, tier in enumerate(TIERS):
            chosen = [row for row in rows if row["keys"][1:3] == [body, tier]]
            seeds = f"{len(chosen)} seed" + "s" * (len(chosen) != 1)
            panel(grid[line, column], chosen, title=f"{body}, {tier} ({seeds})")
    for kind in ("png", "svg"):
        figure.savefig(
            folder / f"conditioning.{kind}",
            dpi=110,
            metadata={} if kind == "png" else {"Date": None},
        )


def panel(figure: Any, rows: Sequence[dict[str, Any]], *, title: str) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.set_title(title, loc="left", color=INK, fontsize=10)
    if not rows:
        above.text(0.5, 0.5, "not measured", transform=above.transAxes, ha="center")
        return
    targets, means = curve(rows)
    low, high = rows[0]["range"]
    span = [min(low, float(means.min())), max(high, float(means.max()))]
    above.plot(span, span, color=GREY, linestyle="--", linewidth=1.2)
    for seed in means:
        above.plot(targets, seed, "x", color=BLUE, alpha=0.55, markersize=5)
    above.plot(targets, means.mean(axis=0), "o-", color=BLUE, markersize=5)
    above.axvline(high, color=INK, linewidth=0.8)
    above.set_ylabel("return achieved")
    edges, counts = rows[0]["histogram"]["edges"], rows[0]["histogram"]["counts"]
    below.stairs(counts, edges, fill=True, color=GREY)
    below.axvline(high, color=INK, linewidth=0.8)
    below.set_ylabel("episodes")
    below.set_xlabel("return asked for; grey: the data; line: its best")
    for axes in (above, below):
        axes.spines["right"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


if __name__ == "__main__":
    main()
