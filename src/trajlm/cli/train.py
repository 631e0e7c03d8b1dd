"""`trajlm train`: parse, run, print the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting
from trajlm.core.discovery import algorithm, algorithms
from trajlm.core.errors import UsageError
from trajlm.evaluation.config import EvaluationConfig
from trajlm.runs.config import (
    RECIPE_SUFFIXES,
    RESUMABLE,
    DataConfig,
    RunConfig,
    changed_keys,
    resolve,
)
from trajlm.runs.folder import read_run
from trajlm.training.config import TrainingConfig

ALIASES = {
    "--data": "--data.path",
    "--env-id": "--data.env-id",
    "--steps": "--training.steps",
    "--episodes": "--evaluation.episodes",
}
DESCRIPTION = (
    "trajlm train RECIPE --data DATASET. RECIPE: ALGORITHM/NAME (trajlm list) or a run.yaml. "
    "Short for longer flags: --data (--data.path), --env-id, --steps, --episodes."
)
# tyro reads the flags' words from here: a class made at run time has no source to read.
HELP = """Train a recipe.

Args:
    seed: Of the weights, the batches and dropout; the first one of several.
    seeds: How many seeds to train, side by side, into one table.
    name: The folder below the output; made of recipe, data and seed where not given.
    output: Where run folders lie.
    device: auto, cpu or cuda.
    threads: Of torch; its own choice where not given.
    dry_run: Print configuration, parameters, operations and estimated time; train nothing.
    json: Print JSON.
    verbose: Show details and tracebacks.
"""


def main(argv: Sequence[str]) -> int:
    reference, resumed, rest = split(argv)
    base = _base(reference, resumed, helping=any(token in flags.HELP for token in rest))
    arguments = flags.parse(
        train_flags(base.algorithm),
        rest,
        prog="trajlm train",
        description=DESCRIPTION,
        default=_defaults(base),
        aliases=ALIASES,
    )
    to_stderr(verbose=arguments.verbose)
    config = _config(base, arguments)
    if arguments.dry_run:
        return _dry_run(config, as_json=arguments.json)
    if arguments.seeds < 1:
        raise UsageError(f"--seeds: {arguments.seeds} is below 1")
    results = _train(config, arguments, resumed)
    if arguments.json:
        tables.print_json(results)
    elif results["rows"]:
        tables.print_results(results, caption=f"in {results['folder']}")
    else:
        print(f"trained: {results['folder']}")
        if config.entry.algorithm_class.acts:
            print(f"to score it: trajlm evaluate {results['folder']} --data.env-id ID")
    return 0


def split(argv: Sequence[str]) -> tuple[str | None, Path | None, list[str]]:
    """The recipe, the folder of `--resume`, and the remaining arguments."""
    rest, resumed = list(argv), None
    for number, token in enumerate(rest):
        flag, equals, value = token.partition("=")
        if flag == "--resume":
            following = [value] if equals else rest[number + 1 : number + 2]
            if not following or following[0].startswith("-"):
                raise UsageError("--resume names no run; write --resume runs/NAME")
            resumed = Path(following[0])
            del rest[number : number + (1 if equals else 2)]
            break
    recipes = tuple(f"{name}/" for name in algorithms())
    for number, token in enumerate(rest):
        first = number == 0 and not token.startswith("-")
        named = token.startswith(recipes) or token.endswith(RECIPE_SUFFIXES)
        if first or (named and not rest[number - 1].startswith("--")):
            return token, resumed, rest[:number] + rest[number + 1 :]
    return None, resumed, rest


def train_flags(algorithm_name: str) -> type[Any]:
    """The flags of `train`, with the algorithm's own `model` and `policy` sections."""
    module = algorithm(algorithm_name).config_module
    return dataclasses.make_dataclass(
        "TrainFlags",
        [
            ("seed", int),
            ("seeds", int),
            ("name", str | None),
            ("output", str),
            ("device", str),
            ("threads", int | None),
            ("dry_run", bool),
            ("json", bool),
            ("verbose", bool),
            ("data", DataConfig),
            ("training", TrainingConfig),
            ("evaluation", EvaluationConfig),
            ("model", module.Config),
            ("policy", module.PolicyConfig),
        ],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": HELP},
    )


def _base(reference: str | None, resumed: Path | None, *, helping: bool) -> RunConfig:
    if resumed is not None:
        if reference is not None:
            raise UsageError(f"--resume continues a run as it is; leave out {reference!r}")
        return read_run(resumed)
    if reference is not None:
        return resolve(reference)
    name, entry = next(iter(algorithms().items()))
    if helping:  # the flags of `model` and `policy` are those of the first algorithm
        return resolve(f"{name}/{entry.recipes[0]}")
    raise UsageError(f"no recipe; write trajlm train {name}/{entry.recipes[0]} --data DATASET")


def _defaults(base: RunConfig) -> Any:
    shared = {
        name: getattr(base, name)
        for name in (
            *("seed", "device", "threads", "data"),
            *("training", "evaluation", "model", "policy"),
        )
    }
    return train_flags(base.algorithm)(
        seeds=1, name=None, output="runs", dry_run=False, json=False, verbose=False, **shared
    )


def _config(base: RunConfig, arguments: Any) -> RunConfig:
    names = ("seed", "device", "threads", "data", "training", "evaluation", "model", "policy")
    return dataclasses.replace(base, **{name: getattr(arguments, name) for name in names})


def _train(config: RunConfig, arguments: Any, resumed: Path | None) -> dict[str, Any]:
    from trajlm.runs import group, offline

    if resumed is not None:
        refuse_changes(read_run(resumed), config)
    folder = resumed or Path(arguments.output) / (arguments.name or offline.run_name(config))
    several = group.is_group(folder) if resumed else arguments.seeds > 1
    with reporting() as progress:
        if several:
            seeds = range(config.seed, config.seed + arguments.seeds)
            found = group.train_group(
                config, folder=folder, seeds=seeds, resuming=resumed is not None, progress=progress
            )
        else:
            found = offline.run(
                config, folder=folder, resuming=resumed is not None, progress=progress
            ).results
    return {**(found or {"rows": []}), "folder": str(folder)}


def refuse_changes(before: RunConfig, now: RunConfig) -> None:
    """A resumed run may differ only in what leaves its updates as they are."""
    changed = [key for key in changed_keys(before, now) if not key.startswith(RESUMABLE)]
    if changed:
        raise UsageError(
            f"--resume cannot change {', '.join(changed)}; start a new run, or leave the flags out"
        )


def _dry_run(config: RunConfig, *, as_json: bool) -> int:
    from trajlm.runs.estimate import estimate

    found = estimate(config)
    if as_json:
        tables.print_json(found)
        return 0
    print(config.to_yaml(), end="")
    print(f"parameters: {found['parameters']:,}")
    print(f"FLOPs an update: {found['flops_per_update'] / 1e9:.2f} G")
    print(f"updates/s measured: {found['updates_per_s']:.1f} ({found['precision']})")
    print(f"estimated training time: {found['seconds'] / 60:.1f} minutes")
    return 0
