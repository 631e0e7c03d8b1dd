"""Kill trainings with SIGKILL at random moments, resume them, and compare with unbroken ones.

    python scripts/kill_resume.py --kills 30 --output results/resume

For each recipe: a run of `trajlm train` is killed (-9) at random moments, a quarter of them before
its first update, and resumed until it has had its kills; then it ends, and the SHA-256 of its
weights and of its optimiser must be those of a run that was never killed. Checkpoints are written
every few updates, so that many kills fall into a save.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECIPES = ("decision_transformer/debug", "behavior_cloning/debug")
DATASET = "halfcheetah/medium-expert"
COMPARED = ("model.safetensors", "optimizer.safetensors")
EARLY_SHARE = 0.25
FLAGS = [
    *("--threads", "1", "--training.checkpoint-every", "3", "--training.log-every", "1"),
    *(
        "--training.keep-last",
        "2",
        "--training.no-tensorboard",
        "--training.validation-every",
        "50",
    ),
    *("--evaluation.episodes", "1", "--evaluation.no-video"),
]


class Trial:
    """One recipe's runs in one folder: the killed one and the unbroken one."""

    def __init__(self, recipe: str, *, folder: Path, steps: int, seed: int) -> None:
        self.recipe, self.folder, self.steps = recipe, folder, steps
        self.moments = random.Random(seed)
        self.environment = {
            **os.environ,
            "MINARI_DATASETS_PATH": str(folder / "data"),
            "OMP_NUM_THREADS": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "trajlm.cli.main", *arguments]

    def train(self, name: str) -> list[str]:
        flags = [*FLAGS, "--training.steps", str(self.steps)]
        place = ["--output", str(self.folder), "--name", name]
        return self.command("train", self.recipe, "--data", f"trajlm/{DATASET}-v0", *place, *flags)

    def start(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=subprocess.STDOUT
            )

    def finish(self, command: list[str], log: str) -> None:
        code = self.start(command, log).wait()
        if code != 0:
            tail = (self.folder / log).read_text(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(command)}: exit {code}\n{tail}")

    def killed_and_resumed(self, kills: int) -> list[dict[str, Any]]:
        """What each kill hit: updates there were in the log, and seconds since the start."""
        hits: list[dict[str, Any]] = []
        while len(hits) < kills:
            run = self.folder / "killed"
            known = (run / "run.yaml").is_file()
            command = self.command("train", "--resume", str(run)) if known else self.train("killed")
            process, started = self.start(command, "killed.log"), time.monotonic()
            early = self.moments.random() < EARLY_SHARE
            self._wait(process, early=early)
            time.sleep(self.moments.uniform(0.0, 0.6))
            ended = process.poll()
            if ended is not None:
                raise SystemExit(
                    f"{self.recipe}: ended by itself (exit {ended}) after {len(hits)} kills; "
                    "give it more --steps" + (self.folder / "killed.log").read_text()[-1000:]
                )
            process.send_signal(signal.SIGKILL)
            process.wait()
            hit = {"updates": self.updates(), "seconds": round(time.monotonic() - started, 2)}
            hits.append(hit)
            print(json.dumps({"recipe": self.recipe, "kill": len(hits), **hit}), flush=True)
        return hits

    def _wait(self, process: subprocess.Popen[bytes], *, early: bool) -> None:
        """Until the process makes updates, or for a moment of its start."""
        before = self.updates()
        deadline = time.monotonic() + (self.moments.uniform(0.0, 3.0) if early else 120.0)
        while time.monotonic() < deadline and process.poll() is None:
            if not early and self.updates() > before:
                return
            time.sleep(0.02)

    def updates(self) -> int:
        path = self.folder / "killed" / "metrics.jsonl"
        if not path.is_file():
            return 0
        lines = [line for line in path.read_text(errors="replace").splitlines() if line[-1:] == "}"]
        return max((int(json.loads(line)["step"]) for line in lines[-3:]), default=0)

    def digests(self, name: str) -> dict[str, str]:
        folder = self.folder / name / "checkpoints" / f"step-{self.steps:08d}"
        files = json.loads((folder / "manifest.json").read_text())["files"]
        return {file: files[file]["sha256"] for file in COMPARED}


def run_trial(recipe: str, *, kills: int, steps: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        trial = Trial(recipe, folder=Path(place), steps=steps, seed=seed)
        trial.finish(trial.command("collect", DATASET, "--steps", "8000"), "collect.log")
        hits = trial.killed_and_resumed(kills)
        trial.finish(trial.command("train", "--resume", str(Path(place) / "killed")), "killed.log")
        trial.finish(trial.train("whole"), "whole.log")
        killed, whole = trial.digests("killed"), trial.digests("whole")
    return {
        "recipe": recipe,
        "kills": kills,
        "resumed": len(hits),
        "updates": steps,
        "equal": killed == whole,
        "sha256": whole,
        "hits": hits,
    }


def write(results: list[dict[str, Any]], output: Path, *, command: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    facts = {
        "command": command,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "torch": version("torch"),
        "trials": results,
    }
    (output / "results.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Killed and resumed",
        "",
        f"`{command}`; {facts['machine']}, torch {facts['torch']}, one thread.",
        "",
        "| recipe | updates | kills (-9) | resumed | weights and optimiser equal, by SHA-256 |",
        "|---|---|---|---|---|",
    ]
    for one in results:
        equal = "yes" if one["equal"] else "NO"
        lines.append(
            f"| `{one['recipe']}` | {one['updates']:,} | {one['kills']} | {one['resumed']} | {equal} |"
        )
    (output / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/resume"))
    arguments = parser.parse_args()
    results = [
        run_trial(recipe, kills=arguments.kills, steps=arguments.steps, seed=arguments.seed)
        for recipe in arguments.recipes
    ]
    command = (
        f"python scripts/kill_resume.py --kills {arguments.kills} --steps {arguments.steps} "
        f"--seed {arguments.seed}"
    )
    write(results, arguments.output, command=command)
    if not all(one["equal"] for one in results):
        raise SystemExit("a resumed run differs from the unbroken one")


if __name__ == "__main__":
    main()
