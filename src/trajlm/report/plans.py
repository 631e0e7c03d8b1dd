"""Plan files read into plain data: plan.json and open_loop.json, checked before they are drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.formats import PLAN_FORMAT
from trajlm.report.formatting import plain
from trajlm.report.records import read_json

NAMES = ("plan.json", "open_loop.json")
KINDS = ("plan", "open_loop")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Beams from a present, best first.

    `past` (t+1, O): observed, the last one the present, at step `step`. `beams` (P, H-1, O): what
    each beam predicts next. `truth` (K, O): what came. `names` (O,), `scores` (P,).
    """

    folder: Path
    kind: str
    protocol: Mapping[str, Any]
    names: tuple[str, ...]
    dimensions: tuple[int, ...]
    step: int
    past: np.ndarray
    beams: np.ndarray
    scores: np.ndarray
    chosen: int
    truth: np.ndarray
    ended: bool
    rewards: tuple[float, float]
    """Of the chosen beam and of the truth, over the steps that there truly were."""

    @property
    def horizon(self) -> int:
        """Planned transitions."""
        return int(self.beams.shape[1]) + 1


def read_plan(path: Path, gaps: list[str]) -> Plan | None:
    """None, with a gap, where the file is not a plan that can be drawn."""
    record = read_json(path, gaps)
    if not record:
        return None
    if record.get("format") != PLAN_FORMAT:
        gaps.append(f"{path.parent.name}/{path.name} is not in the format {PLAN_FORMAT!r}.")
        return None
    try:
        return _plan(path, record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        gaps.append(f"{path.parent.name}/{path.name} is damaged ({plain(error, limit=80)}).")
        return None


def newest_plans(folder: Path, gaps: list[str], *, most: int) -> list[Plan]:
    """The newest plans of a run, each with the open-loop prediction beside it."""
    found = []
    for name in NAMES:
        plans = [read_plan(path, gaps) for path in sorted(folder.glob(f"plans/*/{name}"))]
        found += sorted((p for p in plans if p is not None), key=_age, reverse=True)[:most]
    return found


def _age(plan: Plan) -> tuple[str, str]:
    return str(plan.protocol.get("time", "")), plan.folder.name


def _plan(path: Path, record: Mapping[str, Any]) -> Plan:
    names = tuple(plain(name, limit=60) for name in record["names"])
    size = len(names)
    beams, truth = record["beams"], record["truth"]
    chosen = int(record["chosen"])
    earned = [float(reward) for reward in truth["rewards"]]
    expected = [float(reward) for reward in beams[chosen]["rewards"]][: len(earned)]
    plan = Plan(
        folder=path.parent,
        kind=KINDS[KINDS.index(record["kind"])],
        protocol=dict(record["protocol"]),
        names=names,
        dimensions=tuple(int(number) for number in record["dimensions"]),
        step=int(record["protocol"]["step"]),
        past=_table(record["past"]["observations"], size),
        beams=np.stack([_table(beam["observations"], size) for beam in beams]),
        scores=np.array([beam["score"] for beam in beams], float),
        chosen=chosen,
        truth=_table(truth["observations"], size),
        ended=bool(truth["ended"]),
        rewards=(sum(expected), sum(earned)),
    )
    if not plan.dimensions or not all(0 <= number < size for number in plan.dimensions):
        raise ValueError("dimensions that are not observed")
    if not len(plan.past) or not 0 <= chosen < len(plan.scores):
        raise ValueError("no present, or no chosen beam")
    return plan


def _table(rows: Sequence[Any], size: int) -> np.ndarray:
    """(K, O) float; what was not finite is NaN, which is not drawn."""
    return np.array(rows, float).reshape(-1, size)


def updates(plan: Plan) -> int | None:
    """Of the checkpoint that planned."""
    found = plan.protocol.get("checkpoint_step")
    if isinstance(found, int):
        return found
    named = re.match(r"step-(\d{1,12})", plan.folder.name)
    return int(named[1]) if named else None
