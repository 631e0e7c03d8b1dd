"""One experiment from question to picture: the folder, its protocol, results.json, the picture."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trajlm.core.errors import Interrupted, StorageError, UsageError
from trajlm.core.formats import REPRODUCTION_FORMAT
from trajlm.reproduce import catalogue, selection, taking_part
from trajlm.reproduce.base import Experiment, Findings
from trajlm.reproduce.context import Context
from trajlm.reproduce.picture import draw
from trajlm.runs.cells import Progress
from trajlm.runs.facts import installation
from trajlm.runs.folder import make_folder, read_json, write_json
from trajlm.training.lock import RunLock

PROTOCOL_FILE = "protocol.json"
RESULTS_FILE = "results.json"
FACTS = ("versions", "python", "git", "machine", "cores")


def reproduce(
    name: str,
    *,
    scale: str = "small",
    seeds: int | None = None,
    algorithms: Sequence[str] = (),
    output: Path | None = None,
    data: Sequence[str] = (),
    only: Sequence[str] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run an experiment, or go on with one; its results.json as a mapping, and its folder.

    `seeds` and `algorithms` default to the experiment's; `output` to runs/reproduce/NAME-SCALE.
    `data`: references of the user's own data, where the experiment takes them. `only`: names of
    trainings, or shell patterns of them, where it can be made in parts; an empty one runs nothing and
    makes the results of what is there.
    Raises `UsageError` for unknown names and an algorithm that does not fit, `StorageError` for a
    folder that another protocol made, `Interrupted` after SIGINT: the same call then goes on.
    """
    experiment, context = prepare(
        name, scale=scale, seeds=seeds, algorithms=algorithms, output=output, data=data
    )
    if workers < 1:
        raise UsageError(f"--workers: {workers} is below 1")
    context.workers, context.progress = workers, progress
    if only is not None:
        context.only = selection.chosen(experiment, context, only)
    folder, protocol = context.folder, protocol_of(experiment, context)
    make_folder(folder)
    with RunLock(folder):
        makers = _note_protocol(folder, protocol)
        try:
            findings = experiment.run(context)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; run the same command again to go on", signal_number=signal.SIGINT
            ) from None
        context.keep_time()
        results = _results(experiment, findings, context, protocol, makers=makers)
        write_json(folder / RESULTS_FILE, results)
        results = read_json(folder / RESULTS_FILE)
        draw(experiment, results, folder)
        for name, write in experiment.further.items():
            write(results, folder / name)
    return results, folder


def prepare(
    name: str,
    *,
    scale: str = "small",
    seeds: int | None = None,
    algorithms: Sequence[str] = (),
    output: Path | None = None,
    data: Sequence[str] = (),
) -> tuple[Experiment, Context]:
    """An experiment and what its run would be handed, checked; nothing is written.

    Where it can be made in parts, recipes that took part in `output` before go on taking part, and
    a folder of fewer seeds takes further ones.
    """
    experiment = catalogue.experiment(name)
    chosen = catalogue.scale_of(experiment, scale)
    count = chosen.seeds if seeds is None else seeds
    if count < 1:
        raise UsageError(f"--seeds: {count} is below 1")
    if data and not experiment.takes_data:
        raise UsageError(f"--data: {name} makes its own data; see trajlm reproduce {name} --help")
    recipes = taking_part.recipes(experiment, algorithms)
    folder = output or Path("runs") / "reproduce" / f"{name}-{scale}"
    if experiment.cells is not None and (folder / PROTOCOL_FILE).is_file():
        before = read_json(folder / PROTOCOL_FILE).get("algorithms", [])
        recipes = tuple(dict.fromkeys((*before, *recipes)))
    context = Context(
        scale_name=scale,
        scale=chosen,
        seeds=tuple(range(count)),
        algorithms=recipes,
        folder=folder,
        data=tuple(data),
    )
    checked = protocol_of(experiment, context)
    if experiment.cells is not None:
        del checked["algorithms"]
    refuse_other_protocol(folder, checked, further_seeds=experiment.cells is not None)
    return experiment, context


def protocol_of(experiment: Experiment, context: Context) -> dict[str, Any]:
    """What a folder is of, as protocol.json keeps it."""
    return {
        "experiment": experiment.name,
        "version": experiment.version,
        "scale": context.scale_name,
        "seeds": list(context.seeds),
        "algorithms": list(context.algorithms),
        "settings": dict(context.settings),
        **({"data": list(context.data)} if experiment.takes_data else {}),
    }


def refuse_other_protocol(
    folder: Path, protocol: Mapping[str, Any], *, further_seeds: bool = False
) -> None:
    """Raise `StorageError` where `folder` holds a run of another protocol, or something else.

    `further_seeds`: seeds that begin with the folder's are no other protocol.
    """
    file = folder / PROTOCOL_FILE
    if not file.is_file():
        if folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
            raise StorageError(f"{folder} holds no experiment; choose another --output")
        return
    before = read_json(file)
    plain = json.loads(json.dumps(dict(protocol)))
    seeds = before.get("seeds")
    if further_seeds and seeds and plain["seeds"][: len(seeds)] == seeds:
        before["seeds"] = plain["seeds"]
    differing = [key for key in plain if before.get(key) != plain[key]]
    if differing:
        told = "; ".join(
            f"{key} {_short(before.get(key))}, not {_short(plain[key])}" for key in differing
        )
        raise StorageError(
            f"{folder} was made by another protocol: {told}; choose another --output, or delete it"
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _note_protocol(folder: Path, protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write protocol.json; the installations that worked on this folder, this one last."""
    file = folder / PROTOCOL_FILE
    before = read_json(file).get("made_by", []) if file.is_file() else []
    found = installation()
    now = {key: found[key] for key in FACTS}
    makers = [maker for maker in before if maker != now] + [now]
    write_json(file, {**protocol, "made_by": makers})
    return makers


def _results(
    experiment: Experiment,
    findings: Findings,
    context: Context,
    protocol: Mapping[str, Any],
    *,
    makers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        "format": REPRODUCTION_FORMAT,
        **{key: getattr(experiment, key) for key in ("title", "question", "claim", "source")},
        "published": [asdict(figure) for figure in experiment.published],
        "command": command(experiment, protocol),
        "protocol": dict(protocol),
        "made_by": list(makers),
        "seconds": round(context.seconds, 1),
        "data": context.datasets,
        "commands": context.commands,
        "held": findings.held,
        "verdict": findings.verdict,
        "tables": [asdict(table) for table in findings.tables],
        "rows": list(findings.rows),
        "picture": dict(findings.picture),
    }


def command(experiment: Experiment, protocol: Mapping[str, Any]) -> str:
    """The command that makes these results, without what is usual."""
    words = ["trajlm", "reproduce", experiment.name, "--scale", str(protocol["scale"])]
    if len(protocol["seeds"]) != experiment.scales[protocol["scale"]].seeds:
        words += ["--seeds", str(len(protocol["seeds"]))]
    if tuple(protocol["algorithms"]) != experiment.algorithms:
        words += ["--algorithms", *protocol["algorithms"]]
    if protocol.get("data"):
        words += ["--data", *protocol["data"]]
    return shlex.join(words)
