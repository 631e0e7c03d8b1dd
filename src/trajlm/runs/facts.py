"""Facts of the machine and the installation, for meta.json, results and `trajlm doctor`."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trajlm import __version__
from trajlm.core.machine import available_cores

PACKAGES = ("torch", "numpy", "safetensors", "gymnasium", "mujoco", "h5py", "minari")


def package_version(name: str) -> str | None:
    """The installed version, read without importing; None where the package is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> str:
    """One line: processor, cores, system."""
    return f"{processor_name()}, {available_cores()} cores, {platform.system()}"


def git_commit() -> str | None:
    """The commit of the checkout this package lies in; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def command_line() -> list[str]:
    """The command as one would type it; `python -m trajlm.cli.main` is `trajlm`."""
    program = Path(sys.argv[0])
    name = "trajlm" if program.name == "main.py" and program.parent.name == "cli" else program.name
    return [name, *sys.argv[1:]]


def installation() -> dict[str, Any]:
    """Versions and machine, as plain JSON."""
    return {
        "versions": {"trajlm": __version__, **{name: package_version(name) for name in PACKAGES}},
        "python": platform.python_version(),
        "git": git_commit(),
        "machine": machine(),
        "cores": available_cores(),
        "command": command_line(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
