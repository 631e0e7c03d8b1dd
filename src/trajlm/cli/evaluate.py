"""`trajlm evaluate RUN`: score a run at target returns and print the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trajlm.cli import flags, models, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting
from trajlm.core.discovery import algorithm, algorithms
from trajlm.core.errors import UsageError
from trajlm.evaluation.config import EvaluationConfig
from trajlm.runs.config import RunConfig

ALIASES = {
    "--episodes": "--evaluation.episodes",
    "--seed": "--evaluation.seed",
    "--data.env-id": "--env-id",
    "--data.env_id": "--env-id",
}
# tyro reads the flags' words from here: a class made at run time has no source to read.
HELP = """Evaluate a run.

Args:
    env_id: The environment, where not that of the data.
    checkpoint: last, best, or an update's number.
    output: Where the scores go instead of RUN/eval/step-STEP.
    guide: The folder of a run whose critic guides the plans.
    device: auto, cpu or cuda.
    threads: Of torch; its own choice where not given.
    json: Print JSON.
    verbose: Show details and tracebacks.
"""


def main(argv: Sequence[str]) -> int:
    folder = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    rest = list(argv[1:] if folder else argv)
    helping = any(token in flags.HELP for token in rest)
    usual = next(iter(algorithms()))
    base = models.configuration(folder, helping=helping, usual=usual, command="evaluate")
    arguments = flags.parse(
        evaluate_flags(base.algorithm),
        rest,
        prog="trajlm evaluate",
        description=(
            "trajlm evaluate RUN --policy.target-return 2000 4000 --episodes 50. RUN: the folder "
            "of a run, of a group of seeds or of a model (ours or of transformers). Scores go to "
            "RUN/eval/step-STEP, in place of older ones, beside a model to MODEL-eval, or to "
            "--output. --seed is that of the first episode."
        ),
        default=_defaults(base),
        aliases=ALIASES,
    )
    to_stderr(verbose=arguments.verbose)
    assert folder is not None  # models.configuration refuses
    results, written = _evaluate(folder, base, arguments)
    if arguments.json:
        tables.print_json({**results, "folder": str(written)})
    else:
        tables.print_results(results, caption=f"in {written}")
    return 0


def evaluate_flags(algorithm_name: str) -> type[Any]:
    """The flags of `evaluate`, with the algorithm's own `policy` section."""
    return dataclasses.make_dataclass(
        "EvaluateFlags",
        [
            *models.FLAGS,
            ("evaluation", EvaluationConfig),
            ("policy", algorithm(algorithm_name).config_module.PolicyConfig),
        ],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": HELP},
    )


def _defaults(base: RunConfig) -> Any:
    return evaluate_flags(base.algorithm)(
        **models.flag_defaults(base),
        evaluation=base.evaluation,
        policy=base.policy,
    )


def _evaluate(folder: Path, base: RunConfig, arguments: Any) -> tuple[dict[str, Any], Path]:
    from trajlm.runs import group, machine, scoring

    device = machine.set_machine(device=arguments.device, threads=arguments.threads)
    config = dataclasses.replace(base, policy=arguments.policy, evaluation=arguments.evaluation)
    shared = {
        "config": config,
        "env_id": arguments.env_id,
        "checkpoint": arguments.checkpoint,
        "guide": None if arguments.guide is None else Path(arguments.guide),
        "device": device,
    }
    with reporting() as progress:
        if group.is_group(folder):
            if arguments.output is not None:
                raise UsageError(f"--output: {folder} is a group; name one of its runs instead")
            return dict(group.evaluate_group(folder, progress=progress, **shared)), folder
        output = None if arguments.output is None else Path(arguments.output)
        if models.algorithm_of_artefact(folder) is not None:
            model = models.load_artefact(folder, checkpoint=arguments.checkpoint, device=device)
            evaluation, written = scoring.evaluate_artefact(
                model,
                name=folder.resolve().name,
                config=config,
                env_id=arguments.env_id,
                output=output or models.beside(folder, "eval"),
                guide=shared["guide"],
                progress=progress,
            )
            return evaluation.to_json(), written
        evaluation, written = scoring.evaluate_run(
            folder, output=output, progress=progress, **shared
        )
    return evaluation.to_json(), written
