"""`trajlm plan RUN`: one planning step made visible, beside what then truly happens."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trajlm.cli import flags, models, tables
from trajlm.cli.logs import to_stderr
from trajlm.cli.progress import reporting
from trajlm.core.discovery import algorithm, planners, refuse_without_plans
from trajlm.core.errors import UsageError
from trajlm.runs.config import RunConfig

BEAMS_SHOWN = 5
# tyro reads the flags' words from here: a class made at run time has no source to read.
HELP = """Show a plan.

Args:
    steps: Steps that are acted before the plan is made.
    seed: Of the episode.
    dimensions: Entries of the observation to draw; those in which the beams differ most if none.
    video: Film an episode, the true body above the planned one.
    video_steps: How long that episode may be.
    open_loop: Also draw what the model expects to follow a recorded step of the run's dataset.
    env_id: The environment, where not that of the data.
    checkpoint: last, best, or an update's number.
    output: Where the files go instead of RUN/plans/step-UPDATES-t-STEPS.
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
    base = models.configuration(folder, helping=helping, usual=planners()[0], command="plan")
    refuse_without_plans(base.algorithm)
    arguments = flags.parse(
        plan_flags(base.algorithm),
        rest,
        prog="trajlm plan",
        description=(
            "trajlm plan RUN --steps 50 --policy.horizon 5. RUN: the folder of a run or of a model. "
            "All plans that the search kept, and what truly happens when the best one is acted "
            "without looking: plan.json, curves.svg, curves.png and, of planar bodies, bodies.png."
        ),
        default=_defaults(base),
    )
    to_stderr(verbose=arguments.verbose)
    assert folder is not None  # models.configuration refuses
    record, files = _plan(folder, base, arguments)
    if arguments.json:
        tables.print_json({**record, "files": files})
    else:
        _print(record, files)
    return 0


def plan_flags(algorithm_name: str) -> type[Any]:
    """The flags of `plan`, with the algorithm's own `policy` section."""
    return dataclasses.make_dataclass(
        "PlanFlags",
        [
            ("steps", int),
            ("seed", int),
            ("dimensions", tuple[int, ...]),
            ("video", bool),
            ("video_steps", int),
            ("open_loop", bool),
            *models.FLAGS,
            ("policy", algorithm(algorithm_name).config_module.PolicyConfig),
        ],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": HELP},
    )


def _defaults(base: RunConfig) -> Any:
    return plan_flags(base.algorithm)(
        steps=50,
        seed=base.evaluation.seed,
        dimensions=(),
        video=False,
        video_steps=150,
        open_loop=False,
        **models.flag_defaults(base),
        policy=base.policy,
    )


def _plan(folder: Path, base: RunConfig, arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    from trajlm.report.plan_pictures import draw_curves
    from trajlm.runs import assembly, group, machine, open_loop, plan
    from trajlm.runs.guide import load_guide

    if min(arguments.steps, arguments.video_steps) < 0:
        raise UsageError("--steps and --video-steps: expected 0 or more")
    if group.is_group(folder):
        raise UsageError(f"{folder} is a group of seeds; name one of its runs")
    device = machine.set_machine(device=arguments.device, threads=arguments.threads)
    config = dataclasses.replace(base, policy=arguments.policy)
    model, facts, place = _model(folder, config, arguments, device=device)
    output = Path(arguments.output) if arguments.output else place
    guide = None
    if arguments.guide is not None:
        guide = load_guide(arguments.guide, model=model, device=device)
    scene = plan.Scene.of(model, config=config, env_id=arguments.env_id, facts=facts, guide=guide)
    dimensions = tuple(arguments.dimensions)
    with contextlib.closing(scene), reporting() as progress:
        record, written = plan.plan_once(
            scene,
            steps=arguments.steps,
            seed=arguments.seed,
            output=output,
            dimensions=dimensions,
            progress=progress,
        )
        draw_curves(written / plan.PLAN_FILE, name="curves")
        if arguments.open_loop:
            open_loop.open_loop(
                scene,
                assembly.load_store(config),
                start=arguments.steps,
                horizon=scene.policy.horizon,
                output=written,
                dimensions=dimensions,
            )
            draw_curves(written / open_loop.OPEN_LOOP_FILE, name="open_loop")
        if arguments.video:
            plan.film(
                scene,
                seed=arguments.seed,
                max_steps=arguments.video_steps,
                path=written / plan.VIDEO_FILE,
                progress=progress,
            )
    return record, {path.name: str(path) for path in sorted(written.iterdir())}


def _model(
    folder: Path, config: RunConfig, arguments: Any, *, device: str
) -> tuple[Any, dict[str, Any], Path]:
    """The model, the facts of it that a plan's protocol says, and where its plans go."""
    from trajlm.runs.plan import saved_model

    checkpoint = arguments.checkpoint
    if models.algorithm_of_artefact(folder) is None:
        return saved_model(folder, config=config, checkpoint=checkpoint, device=device)
    model = models.load_artefact(folder, checkpoint=checkpoint, device=device)
    facts = {"algorithm": config.algorithm, "recipe": folder.name, "checkpoint": checkpoint}
    return model, facts, models.beside(folder, "plans") / "t-{steps}"


# ---- words on stdout ----------------------------------------------------------------------------


def _print(record: Mapping[str, Any], files: Mapping[str, str]) -> None:
    protocol, beams, truth = record["protocol"], record["beams"], record["truth"]
    rows = [
        [
            f"{place}{' *' if place == record['chosen'] else ''}",
            f"{beam['score']:,.2f}",
            f"{sum(beam['rewards']):,.2f}",
            f"{beam['values'][-1]:,.2f}",
            "" if beam["alive"] else "ends",
        ]
        for place, beam in enumerate(beams[:BEAMS_SHOWN])
    ]
    horizon = len(beams[0]["rewards"])
    # Not the table's own title, which would be broken at the table's width.
    print(
        f"{protocol['env_id']}  seed {protocol['seed']}  step {protocol['step']}  "
        f"{len(beams)} beams of {horizon} steps"
    )
    columns = ["beam", "score", "sum of rewards", "value after", ""]
    tables.print_table("", columns, rows, align="right", caption=_caption(truth, horizon))
    spent = [[part, f"{ms:,.0f} ms"] for part, ms in record["milliseconds"].items()]
    tables.print_listing("time", spent)
    tables.print_listing("files", list(files.items()))


def _caption(truth: Mapping[str, Any], horizon: int) -> str:
    earned = f"{sum(truth['rewards']):,.2f}"
    if truth["ended"]:
        return f"* acted: {earned} in {len(truth['rewards'])} of {horizon} steps, then it ended"
    return f"* acted: the true sum of rewards is {earned}"
