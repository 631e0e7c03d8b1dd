"""Run folders as `trajlm train` writes them, made from formulas: realistic, and quick to write.

`python tests/report/conftest.py FOLDER` writes examples and their pages, to be looked at.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

TARGETS = (1000.0, 2000.0, 4000.0, 5500.0, 7000.0)
BEST = 5584.2
SCORE_NOISE = 160.0


class RunWriter:
    """Writes one run folder; what is switched off is not there."""

    def __init__(self, folder: Path, *, seed: int = 0, **options: Any) -> None:
        self.folder, self.seed = folder, seed
        self.recipe = options.pop("recipe", "decision_transformer/halfcheetah")
        self.env_id = options.pop("env_id", "HalfCheetah-v5")
        self.precision = options.pop("precision", "float32")
        self.targets = options.pop("targets", TARGETS)
        self.skill = options.pop("skill", 1.0)
        self.updates = options.pop("updates", 5000)
        self.planned = options.pop("planned", 5000)
        self.data = options.pop("data", "trajlm/halfcheetah/medium-expert-v0")
        self.algorithm = options.pop("algorithm", "decision_transformer")
        assert not options, options
        self.draw = np.random.default_rng(seed)

    def write(self, *, metrics: bool = True, evaluation: bool = True, video: Any = "gif") -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings()
        self.facts()
        self.dataset()
        if metrics:
            self.metrics()
        if evaluation:
            self.evaluation(self.updates, video=video)
        return self.folder

    def settings(self) -> None:
        config = {
            "recipe": self.recipe,
            "algorithm": self.algorithm,
            "model": {"context_length": 20, "width": 128, "num_layers": 3, "dropout": 0.1},
            "policy": {"target_return": list(self.targets)},
            "training": {"steps": self.planned, "batch_size": 64, "learning_rate": 1e-4},
            "evaluation": {"episodes": 50, "seed": 1000},
            "data": {"path": f"minari:{self.data}", "env_id": None},
            "seed": self.seed,
        }
        (self.folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def facts(self) -> None:
        line = f"trajlm train {self.recipe} --data minari:{self.data} --seed {self.seed}"
        meta = {
            "format": "trajlm.run/1",
            "algorithm": self.algorithm,
            "recipe": self.recipe,
            "seed": self.seed,
            "parameters": 726_662,
            "versions": {"trajlm": "0.1.0", "torch": "2.13.0", "numpy": "2.3.4", "mujoco": "3.3.7"},
            "python": "3.11.7",
            "git": "4f1c2d9e0b7a",
            "machine": "AMD EPYC 9B14, 2 cores, Linux",
            "command": line.split(),
            "training": {"step": self.updates, "updates_per_s": 18.42, "seconds": 271.4},
            "held_out": [
                {
                    "decile": n,
                    "low": 1500.0 * n,
                    "high": 1500.0 * (n + 1),
                    "episodes": n,
                    "loss": n / 100,
                }
                for n in (1, 3)
            ],
            "precision": {"name": "bf16", "reason": "the processor multiplies bf16 natively"},
        }
        self.json("meta.json", meta)

    def dataset(self) -> None:
        draw = np.random.default_rng(7)
        returns = np.concatenate([draw.normal(1850, 130, 100), draw.normal(5380, 110, 100)])
        returns[-1] = BEST
        returns = np.minimum(returns, BEST)
        counts, edges = np.histogram(returns, bins=40)
        levels = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
        quantiles = np.quantile(returns, levels)
        summary = {
            "format": "trajlm.dataset/1",
            "name": self.data,
            "env_id": self.env_id,
            "hash": "9f2c" * 16,
            "episodes": 200,
            "steps": 200_000,
            "terminated": 0,
            "truncated": 200,
            "unfinished": 0,
            "seeds_recorded": 200,
            "has_last_observation": True,
            "observation": {
                "dims": 17,
                "leaves": {"observations": {"type": "Box", "shape": [17], "dtype": "float32"}},
            },
            "action": {
                "dims": 6,
                "leaves": {"actions": {"type": "Box", "shape": [6], "dtype": "float32"}},
            },
            "action_range": [-1.0, 1.0],
            "reward_range": [-2.914, 9.82],
            "lengths": {"min": 1000, "mean": 1000.0, "max": 1000},
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "return_quantiles": {
                f"{a:g}": float(b) for a, b in zip(levels, quantiles, strict=True)
            },
            "return_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }
        self.json("dataset.json", summary)

    def metrics(self) -> None:
        lines = []
        for step in range(10, self.updates + 1, 10):
            loss = 0.032 + 0.42 * np.exp(-step / 420) + self.draw.normal(0, 0.0022)
            lines.append(
                {
                    "step": step,
                    "time": step / 18.4,
                    "train/loss": loss,
                    "train/learning_rate": 1e-4 * min(1.0, step / 500),
                    "train/gradient_norm": 0.12 + 1.4 * np.exp(-step / 300)
                    + abs(self.draw.normal(0, 0.02)),
                    "perf/updates_per_s": 18.4 + self.draw.normal(0, 0.4),
                }
            )  # fmt: skip
            if step % 500 == 0:
                lines.append({"step": step, "validation/loss": float(loss) * 1.06 + 0.001})
        text = "\n".join(json.dumps(line) for line in lines) + "\n"
        (self.folder / "metrics.jsonl").write_text(text)

    def evaluation(self, step: int, *, video: Any = None) -> Path:
        place = self.folder / "eval" / f"step-{step:08d}"
        place.mkdir(parents=True)
        share = min(1.0, step / max(1, self.updates))
        rows = []
        with (place / "episodes.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(
                [
                    "target_return",
                    "episode",
                    "seed",
                    "return",
                    "length",
                    "terminated",
                    "truncated",
                    "failed",
                ]
            )
            for target in self.targets:
                reached = self.skill * share * (min(target, 5300.0) * 0.96 + 70.0)
                noise = self.draw.normal(0, SCORE_NOISE, 50)
                noise[:3] -= abs(self.draw.normal(0, 5 * SCORE_NOISE, 3))
                returns = reached + noise
                for number, value in enumerate(returns):
                    early = number < 3 and self.env_id != "HalfCheetah-v5"
                    flags = [int(early), int(not early), 0]
                    table.writerow(
                        [target, number, 1000 + number, repr(float(value)), 1000, *flags]
                    )
                rows.append(self.row(target, returns))
        protocol = {
            "env_id": self.env_id,
            "mujoco": "3.3.7",
            "gymnasium": "1.2.0",
            "torch": "2.13.0",
            "trajlm": "0.1.0",
            "targets": list(self.targets),
            "episodes": 50,
            "evaluation_seed": 1000,
            "precision": self.precision,
            "checkpoint": "last",
            "checkpoint_step": step,
            "dataset": self.data,
            "data_hash": "9f2c" * 16,
            "algorithm": self.algorithm,
            "recipe": self.recipe,
            "training_seed": self.seed,
            "updates": step,
            "threads": 2,
            "machine": "AMD EPYC 9B14, 2 cores, Linux",
        }
        timing = {"total_seconds": 41.2, "model_seconds": 27.9, "physics_seconds": 11.8}
        results = {
            "format": "trajlm.results/1",
            "protocol": protocol,
            "rows": rows,
            "timing": timing,
        }
        (place / "results.json").write_text(json.dumps(results))
        if video == "gif":
            write_gif(place / "video.gif")
        elif isinstance(video, bytes):
            (place / "video.mp4").write_bytes(video)
        return place

    def row(self, target: float, returns: np.ndarray) -> dict[str, Any]:
        mean, half = float(returns.mean()), float(1.96 * returns.std() / np.sqrt(len(returns)))
        ends = [mean - half, mean + half]
        return {
            "target_return": target,
            "episodes": len(returns),
            "failed": 0,
            "return_mean": mean,
            "return_std": float(returns.std()),
            "return_interval": ends,
            "interval_kind": "95% bootstrap over episodes",
            "length_mean": 1000.0,
            "d4rl_score": (mean + 280.2) / 124.15,
            "d4rl_interval": [(end + 280.2) / 124.15 for end in ends],
            "dataset_score": (mean + 283.0) / 56.8,
            "dataset_interval": [(end + 283.0) / 56.8 for end in ends],
            "env_id": self.env_id,
            "mujoco": "3.3.7",
        }

    def json(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))


def write_group(folder: Path, *, seeds: int = 3, **options: Any) -> Path:
    """`folder/seed-0..` and the group's own files."""
    base = options.pop("skill", 1.0)
    tables = []
    for seed in range(seeds):
        writer = RunWriter(folder / f"seed-{seed}", seed=seed, skill=base - 0.03 * seed, **options)
        writer.write(video="gif" if seed == 0 else None)
        found = next((folder / f"seed-{seed}" / "eval").iterdir())
        tables.append(json.loads((found / "results.json").read_text()))
    rows = []
    for lines in zip(*(table["rows"] for table in tables), strict=True):
        means = [line["return_mean"] for line in lines]
        first = {key: lines[0][key] for key in ("target_return", "env_id", "mujoco", "length_mean")}
        rows.append(
            first
            | {
                "seeds": seeds,
                "episodes": 50 * seeds,
                "failed": 0,
                "return_means": means,
                "interval_kind": "95% bootstrap over training seeds",
                "return_mean": float(np.mean(means)),
                "return_interval": [min(means), max(means)],
                "d4rl_score": (float(np.mean(means)) + 280.2) / 124.15,
                "dataset_score": (float(np.mean(means)) + 283.0) / 56.8,
            }
        )
    group = {
        "format": "trajlm.group/1",
        "runs": [f"seed-{seed}" for seed in range(seeds)],
        "protocol": {k: v for k, v in tables[0]["protocol"].items() if k != "training_seed"},
        "rows": rows,
    }
    (folder / "results.json").write_text(json.dumps(group))
    (folder / "run.yaml").write_text((folder / "seed-0" / "run.yaml").read_text())
    return folder


def pictures(count: int = 24) -> list[Any]:
    """Frames of a bar that swings over a chequered floor."""
    from PIL import Image, ImageDraw

    frames = []
    for number in range(count):
        image = Image.new("RGB", (480, 360), (110, 155, 200))
        pen = ImageDraw.Draw(image)
        for tile in range(-1, 9):
            x = tile * 60 - number * 5 % 60
            pen.rectangle([x, 270, x + 30, 360], fill=(70, 90, 80))
        swing = 40 * np.sin(number / 24 * 2 * np.pi)
        pen.line([150, 230, 330, 230 + swing / 4], fill=(200, 90, 50), width=24)
        for hip in (170, 310):
            pen.line([hip, 235, hip + swing, 300], fill=(170, 70, 40), width=14)
            swing = -swing
        frames.append(image)
    return frames


def write_gif(path: Path) -> None:
    pytest.importorskip("PIL")
    first, *rest = pictures()
    first.save(path, save_all=True, append_images=rest, duration=40, loop=0)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run(name, metrics=..., evaluation=..., video=..., **RunWriter's options)`."""

    def write(name: str = "one", **options: Any) -> Path:
        parts = {k: options.pop(k) for k in ("metrics", "evaluation", "video") if k in options}
        return RunWriter(tmp_path / "runs" / name, **options).write(**({"video": None} | parts))

    return write


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of an example by its name; each is written once."""
    from trajlm.report import build_report

    root = tmp_path_factory.mktemp("examples")
    members = write_examples(root)
    pages: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in pages:
            pages[name] = build_report(members[name], root / f"{name}.html")
        return pages[name]

    return page


@pytest.fixture
def write_seeds(tmp_path: Path) -> Callable[..., Path]:
    """`write_seeds(name, seeds=3)`: a group."""
    return lambda name="group", **options: write_group(tmp_path / "runs" / name, **options)


def write_examples(folder: Path) -> dict[str, list[Path]]:
    """Run folders for one page each: a single run, a group, a mix of protocols, gaps."""
    runs = folder / "runs"
    single = RunWriter(runs / "demo", planned=6000)
    single.evaluation(2500)
    single.write(video="gif")
    group = write_group(runs / "three-seeds")
    rough = RunWriter(runs / "rough", seed=5, skill=0.86, precision="bf16")
    small = RunWriter(runs / "small", seed=4, skill=0.7, recipe="decision_transformer/small")
    hopper = RunWriter(
        runs / "hopper", seed=6, env_id="Hopper-v5", targets=(1800.0, 3600.0),
        recipe="decision_transformer/hopper", data="trajlm/hopper/medium-expert-v0",
    )  # fmt: skip
    crashed = RunWriter(runs / "crashed", updates=1240)
    for writer in (rough, small, hopper):
        writer.write(video=None)
    crashed.write(evaluation=False)
    empty = runs / "<b>empty & odd"
    empty.mkdir()
    (empty / "meta.json").write_text("{")
    methods = [
        write_group(
            runs / f"{algorithm}-{body}", skill=skill, algorithm=algorithm, env_id=env_id,
            data=f"trajlm/{body}/replay-v0", recipe=f"{algorithm}/{body}",
        )
        for algorithm, skill in (("decision_transformer", 1.0), ("behavior_cloning", 0.8))
        for body, env_id in (("halfcheetah", "HalfCheetah-v5"), ("hopper", "Hopper-v5"))
    ]  # fmt: skip
    names = ("demo", "small", "rough", "hopper", "crashed", "three-seeds")
    return {
        "single": [runs / "demo"],
        "group": [group],
        "mixed": [runs / name for name in names],
        "same": [runs / "demo", runs / "small", group],
        "methods": methods,
        "gaps": [runs / "crashed"],
        "bare": [empty],
    }


if __name__ == "__main__":
    from trajlm.report import build_report

    root = Path(sys.argv[1])
    for name, members in write_examples(root).items():
        sys.stdout.write(f"{build_report(members, root / f'{name}.html')}\n")
