"""Makes the toy algorithm a plug-in as an installed package is: by the metadata beside it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import time
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
    (metadata / "entry_points.txt").write_text(
        "[trajlm.algorithms]\ntoy = toy_algorithm\ntoy_phases = toy_phases\n"
    )
    return [str(PLUGINS), str(root)]


@pytest.fixture(autouse=True)
def _installed_toy(plugin_paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in plugin_paths:
        monkeypatch.syspath_prepend(path)


@pytest.fixture(scope="session")
def toy_processes(plugin_paths: list[str]):
    """Forks processes from one that has imported torch and the toy: each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_run"])
    path = os.pathsep.join([str(SOURCE), *plugin_paths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()
    return context


class ToyProcess:
    """A run of the toy in a process of its own; its stderr is kept in a file."""

    def __init__(self, context, folder: Path, facts: dict) -> None:
        from toy_run import run_process

        self._stderr = folder.with_name(f"{folder.name}.stderr")
        self._stderr.unlink(missing_ok=True)
        self.process = context.Process(target=run_process, args=(folder, facts, self._stderr))
        self.process.start()
        self.pid = self.process.pid

    @property
    def stderr(self) -> str:
        return self._stderr.read_text() if self._stderr.exists() else ""

    def until(self, condition, seconds: float = 60.0) -> None:
        """Wait for the condition while the process runs."""
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, self.stderr
            assert self.process.is_alive(), self.stderr
            time.sleep(0.002)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0) -> int | None:
        """The exit code; None where it still runs."""
        self.process.join(seconds)
        return self.process.exitcode


@pytest.fixture
def start_toy(toy_processes):
    """Starts a `ToyProcess` on a folder; what still runs afterwards is killed."""
    started: list[ToyProcess] = []

    def start(folder: Path, **facts) -> ToyProcess:
        started.append(ToyProcess(toy_processes, folder, facts))
        return started[-1]

    yield start
    for toy in started:
        if toy.process.is_alive():
            toy.process.kill()
        toy.process.join()
