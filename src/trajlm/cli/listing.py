"""`trajlm list`: what there is and what each needs. Imports neither torch nor gymnasium."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.cli import flags, tables
from trajlm.collect.behaviour import TIERS, behaviour_index
from trajlm.core.discovery import algorithms
from trajlm.core.errors import TrajlmError
from trajlm.envs.maze_map import MAZES


@dataclass(frozen=True, kw_only=True)
class ListFlags:
    """`trajlm list`"""

    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show tracebacks."""


def main(argv: Sequence[str]) -> int:
    arguments = flags.parse(
        ListFlags,
        argv,
        prog="trajlm list",
        description="Algorithms, recipes, datasets and environments, with what each needs.",
    )
    found = inventory()
    if arguments.json:
        tables.print_json(found)
        return 0
    for entry in found["algorithms"]:
        title = f"recipes: {entry['summary']}"
        tables.print_listing(title, [(recipe,) for recipe in entry["recipes"]])
    tables.print_listing(
        "datasets on this machine",
        [(f"minari:{name}",) for name in found["datasets"]["local"]]
        or [("none yet: trajlm collect halfcheetah/medium-expert",)],
    )
    tables.print_listing(
        "datasets to collect (trajlm collect NAME)",
        [(name,) for name in found["datasets"]["to_collect"]],
    )
    tables.print_listing(
        "environments",
        [(entry["env_id"], entry["needs"]) for entry in found["environments"]]
        + [("any Gymnasium id", "--data.env-id ID")],
    )
    return 0


def inventory() -> dict[str, Any]:
    """Everything `list` shows, as plain data."""
    try:
        bodies = behaviour_index()
    except TrajlmError:
        bodies = {}
    return {
        "algorithms": [
            {
                "name": name,
                "summary": entry.summary,
                "recipes": [f"{name}/{recipe}" for recipe in entry.recipes],
            }
            for name, entry in algorithms().items()
        ],
        "datasets": {
            "local": _local_datasets(),
            "to_collect": [
                *(f"{body}/{tier}" for body in bodies for tier in TIERS),
                *(f"{maze}/waypoints" for maze in MAZES),
            ],
        },
        "environments": [
            *(
                {"env_id": facts["env_id"], "needs": _needs("mujoco", "mujoco")}
                for facts in bodies.values()
            ),
            *(
                {"env_id": env_id, "needs": _needs("gymnasium_robotics", "robotics")}
                for env_id in MAZES.values()
            ),
        ],
    }


def _needs(module: str, extra: str) -> str:
    present = importlib.util.find_spec(module) is not None
    return "ready" if present else f"pip install 'trajlm[{extra}]'"


def _local_datasets() -> list[str]:
    """Minari ids below the root, by the fixed layout ID/data/main_data.hdf5."""
    default = Path.home() / ".minari" / "datasets"
    root = Path(os.environ.get("MINARI_DATASETS_PATH", default))
    if not root.is_dir():
        return []
    patterns = ["/".join(["*"] * depth) + "/data/main_data.hdf5" for depth in (1, 2, 3, 4)]
    files = [path for pattern in patterns for path in root.glob(pattern)]
    return sorted(path.parent.parent.relative_to(root).as_posix() for path in files)
