"""`trajlm doctor`: what this machine has, what is missing and the line that brings it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajlm.cli import flags, tables
from trajlm.core.machine import available_cores
from trajlm.runs.facts import installation, package_version

EXTRAS = {
    "mujoco": ("mujoco", "the HalfCheetah, Hopper and Walker2d environments"),
    "data": ("h5py", "HDF5 and Minari datasets"),
    "video": ("imageio_ffmpeg", "mp4 videos"),
    "report": ("matplotlib", "plots"),
    "tensorboard": ("tensorboard", "TensorBoard files"),
    "collect": ("stable_baselines3", "training new behaviours"),
    "bench": ("transformers", "the implementation that trajlm bench compares with"),
    "minigrid": ("minigrid", "MiniGrid's tasks"),
    "robotics": ("gymnasium_robotics", "the mazes of Gymnasium-Robotics"),
}
EGL_PACKAGES = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """Look at the machine."""

    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show tracebacks."""


def main(argv: Sequence[str]) -> int:
    arguments = flags.parse(
        DoctorFlags,
        argv,
        prog="trajlm doctor",
        description="Versions, processor, GL and extras, with the line to run for what is missing.",
    )
    found = examine()
    if arguments.json:
        tables.print_json(found)
        return 0
    tables.print_listing("versions", [(k, v or "absent") for k, v in found["versions"].items()])
    tables.print_listing("machine", [(k, str(v)) for k, v in found["machine"].items()])
    tables.print_listing(
        "extras", [(extra["name"], extra["for"], extra["state"]) for extra in found["extras"]]
    )
    tables.print_listing("rendering", [(found["rendering"],)])
    return 0


def examine() -> dict[str, Any]:
    """Everything `doctor` shows, as plain data."""
    import torch

    from trajlm.planning.kernels import compiler
    from trajlm.training.precision import choose_precision

    installed = installation()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "versions": {**installed["versions"], "python": installed["python"]},
        "machine": {
            "processor": installed["machine"],
            "cores": available_cores(),
            "torch threads": torch.get_num_threads(),
            "device": device,
            "precision": str(choose_precision("auto", device=device)),
            "C compiler": " ".join(compiler() or ["none, so no --policy.kernels compiled"]),
            "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB",
        },
        "extras": [
            {"name": name, "for": purpose, "state": _state(name, module)}
            for name, (module, purpose) in EXTRAS.items()
        ],
        "rendering": _rendering(),
    }


def _state(extra: str, module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return f"missing: pip install 'trajlm[{extra}]'"
    return f"{module} {package_version(module.replace('_', '-')) or 'present'}"


def _rendering() -> str:
    if ctypes.util.find_library("EGL"):
        chosen = os.environ.get("MUJOCO_GL")
        return "EGL library found" + (f", MUJOCO_GL={chosen}" if chosen else "")
    return f"no EGL library, so videos are line drawings; for rendered ones: {EGL_PACKAGES}"
