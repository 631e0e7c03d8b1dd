"""Makes the toy algorithm a plug-in as an installed package is: by the metadata beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="session")
def plugin_paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The folders to put on the path: the toy's source and its package metadata."""
    root = tmp_path_factory.mktemp("site")
    metadata = root / "toy_algorithm-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-algorithm\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[trajlm.algorithms]\ntoy = toy_algorithm\n")
    return [str(PLUGINS), str(root)]


@pytest.fixture(autouse=True)
def _installed_toy(plugin_paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in plugin_paths:
        monkeypatch.syspath_prepend(path)


@pytest.fixture
def start_toy(plugin_paths: list[str]):
    """Starts `toy_run.py` on a folder; what is still running afterwards is killed."""
    started: list[subprocess.Popen] = []

    def start(folder: Path, facts: str = "{}") -> subprocess.Popen:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SOURCE), *plugin_paths]),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [sys.executable, str(PLUGINS / "toy_run.py"), str(folder), facts],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
