"""The Decision Transformer beside behaviour cloning and %BC, on the shipped tiers of three bodies.

    python scripts/baselines.py results/baselines

collects the datasets that are not there, trains every cell (method, dataset, seed) and writes
`rows.jsonl` (a line a cell, with its command) and `table.md`. A second call goes on where one ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.collect.collector import dataset_id
from trajlm.data.sources.minari_form import folder_of
from trajlm.evaluation import scores
from trajlm.evaluation.protocol import TRAINED, refuse_mixed
from trajlm.runs.cells import Cell, run_cells, told

BODIES = {"halfcheetah": 200_000, "hopper": 50_000, "walker2d": 50_000}
TIERS = ("medium", "replay", "medium-expert")
METHODS = {
    "DT": "decision_transformer/{body}",
    "BC": "behavior_cloning/{body}",
    "10%BC": "percent_behavior_cloning/ten",
    "25%BC": "percent_behavior_cloning/twenty-five",
    "40%BC": "percent_behavior_cloning/forty",
}
STATISTICS = {"mean": scores.mean, "median": scores.median, "IQM": scores.interquartile_mean}
# A method that is asked for a return has targets, one that is not has none.
SHARED = {key: label for key, label in TRAINED.items() if key != "targets"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--bodies", nargs="+", default=list(BODIES))
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    for body in asked.bodies:
        for tier in TIERS:
            collect(body, tier)
    cells = [
        cell(method, body, tier, seed, updates=asked.updates, episodes=asked.episodes)
        for seed in range(asked.seeds)
        for body in asked.bodies
        for tier in TIERS
        for method in METHODS
    ]
    rows, failures = run_cells(
        cells, folder=asked.folder, runs=asked.runs, workers=asked.workers, kept=told(print)
    )
    print(*failures, sep="\n")
    (asked.folder / "table.md").write_text(table(rows))


def collect(body: str, tier: str) -> None:
    """The dataset, unless it is there."""
    if folder_of(dataset_id(body, tier)).exists():
        return
    command = ["collect", f"{body}/{tier}", "--steps", str(BODIES[body])]
    subprocess.run([sys.executable, "-m", "trajlm.cli.main", *command], check=True)


def cell(method: str, body: str, tier: str, seed: int, *, updates: int, episodes: int) -> Cell:
    """One training. The Decision Transformer is asked for the best return in its data."""
    arguments = [METHODS[method].format(body=body), "--data", dataset_id(body, tier)]
    arguments += ["--seed", str(seed), "--threads", "1", "--steps", str(updates)]
    arguments += ["--episodes", str(episodes), "--evaluation.no-video", "--training.no-tensorboard"]
    if method == "DT":
        arguments += ["--policy.target-return", "max"]
    return Cell(keys=(method, body, tier, str(seed)), arguments=tuple(arguments))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """dataset_score by dataset and method, and the methods' statistics over all datasets."""
    seeds = sorted({row["keys"][3] for row in rows})
    datasets = list(dict.fromkeys((row["keys"][1], row["keys"][2]) for row in rows))
    methods = list(dict.fromkeys(row["keys"][0] for row in rows))
    found = {tuple(row["keys"]): row for row in rows}
    lines = ["| dataset | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]
    for body, tier in datasets:
        cells = [[found.get((m, body, tier, s)) for s in seeds] for m in methods]
        present = [row for column in cells for row in column if row is not None]
        refuse_mixed(
            [row["protocol"] for row in present],
            names=["-".join(row["keys"]) for row in present],
            fields=SHARED,
        )
        shown = [mean_and_range([score(row) for row in column if row]) for column in cells]
        lines.append(f"| {body}/{tier} | " + " | ".join(shown) + " |")
    whole = [
        seed
        for seed in seeds
        if all((m, b, t, seed) in found for m in methods for b, t in datasets)
    ]
    if whole:
        lines += over_all(
            {
                method: np.array(
                    [[score(found[(method, b, t, s)]) for b, t in datasets] for s in whole]
                )
                for method in methods
            }
        )
    return "\n".join([*lines, "", note(len(whole), rows)]) + "\n"


def over_all(matrices: dict[str, np.ndarray]) -> list[str]:
    """Lines of statistics over every dataset; matrices are seeds x datasets."""
    lines = []
    for name, statistic in STATISTICS.items():
        shown = [estimate(statistic, matrix) for matrix in matrices.values()]
        lines.append(f"| **{name}** | " + " | ".join(shown) + " |")
    better = [
        ""
        if m == "DT"
        else estimate(scores.probability_of_improvement, matrices["DT"], matrix, percent=True)
        for m, matrix in matrices.items()
    ]
    lines.append("| **DT beats it** | " + " | ".join(better) + " |")
    return lines


def note(whole: int, rows: Sequence[dict[str, Any]]) -> str:
    """What the numbers are, under the table."""
    first = rows[0]["protocol"]
    steps = ", ".join(f"{body} {count:,}" for body, count in BODIES.items())
    over = (
        f"the {whole} training seeds that have every cell, with 95% bootstrap intervals over seeds "
        "within datasets"
        if whole > 1
        else "the one training seed that has every cell, so without intervals"
    )
    return (
        "dataset_score (0: the random behaviour, 100: the expert behaviour's sampled episodes): the "
        "mean over training seeds, in brackets the lowest and highest seed. DT is asked for the best "
        f"return in its data. {first['updates']:,} updates, {first['episodes']} episodes a seed, last "
        f"checkpoint, MuJoCo {first['mujoco']}; steps of data: {steps}. Last lines: over all datasets "
        f"and {over}. Each cell's command stands in rows.jsonl; all of them: `python "
        "scripts/baselines.py results/baselines`."
    )


def score(row: dict[str, Any]) -> float:
    return float(row["rows"][0]["dataset_score"])


def mean_and_range(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f} (1 seed)"
    return f"{np.mean(values):.1f} ({min(values):.0f} to {max(values):.0f})"


def estimate(statistic: Any, *matrices: np.ndarray, percent: bool = False) -> str:
    """A statistic with its 95% interval over seeds, drawn anew within each dataset."""
    factor, form = (100.0, ".0f") if percent else (1.0, ".1f")
    text = f"{factor * statistic(*matrices):{form}}" + ("%" if percent else "")
    interval = scores.stratified_bootstrap(statistic, *matrices)
    if interval is None:
        return text
    return f"{text} [{factor * interval[0]:{form}}, {factor * interval[1]:{form}}]"


if __name__ == "__main__":
    main()
