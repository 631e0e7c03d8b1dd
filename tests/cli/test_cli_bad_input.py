"""Bad input: one line on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pendulum_data import EPISODE_STEPS, TINY_FLAGS, pendulum_arrays, write_pendulum
from trajlm.cli.main import main

RECIPE = "decision_transformer/debug"
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must end with `code`, one line, nothing on stdout, nothing written."""

    def call(code: int, *command: str | Path) -> str:
        output = tmp_path / "runs"
        before = _tree(output)
        capsys.readouterr()
        assert main([str(part) for part in command]) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        lines = [line for line in shown.err.splitlines() if line.startswith("trajlm: ")]
        assert len(lines) == 1, shown.err
        assert "Traceback" not in shown.err
        assert _tree(output) == before
        return lines[0]

    return call


def _tree(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def train(data: str | Path, output: Path, *more: str | Path) -> list[str]:
    return ["train", RECIPE, "--data", str(data), "--output", str(output), *TINY_FLAGS] + [
        str(part) for part in more
    ]


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], "no recipe"),
        (["train", "decision_transformer/debgu"], "did you mean 'debug'"),
        (["train", "decision_transfomer/debug"], "did you mean 'decision_transformer'"),
        (["train", RECIPE, "--trainng.steps", "3"], "did you mean '--training.steps'"),
        (["train", RECIPE, "--learning-rate", "3"], "did you mean '--training.learning-rate'"),
        (["train", RECIPE, "--model.widht=3"], "did you mean '--model.width'"),
        (["train", RECIPE, "--training.steps", "many"], "--training.steps"),
        (["train", RECIPE, "--training.steps", "-1"], "steps"),
        (["train", RECIPE, "--training.precision", "fp8"], "--training.precision"),
        (["train", RECIPE, "--seed"], "--seed"),
        (["train", RECIPE], "--data DATASET"),
        (["train", RECIPE, "--data", "synthetic:bx"], "did you mean 'box'"),
        (["train", "--resume"], "--resume"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["evaluate"], "no run"),
        (["data"], "data show"),
        (["data", "shw", "x"], "did you mean 'show'"),
        (["collect", "halfchetah/medium"], "did you mean 'halfcheetah'"),
        (["collect", "halfcheetah/mediun"], "did you mean 'medium'"),
        (["collect", "halfcheetah"], "names no tier"),
        (["demo", "--scale", "huge"], "--scale"),
        (["report"], "no run"),
    ],
)
def test_words_that_do_not_exist(refused: Refused, command: list[str], said: str) -> None:
    assert said in refused(2, *command)


def test_a_device_that_is_not_there(refused: Refused, pendulum: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "cpu" in refused(2, *train(pendulum, tmp_path / "runs", "--device", "cuda"))


def test_an_unknown_key_in_a_file(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {RECIPE}\ntraining: {{stesp: 3}}\n")
    assert "did you mean 'steps'" in refused(2, "train", file)


# ---- data ----------------------------------------------------------------------------------------


def test_a_file_that_is_missing(refused: Refused, tmp_path: Path) -> None:
    missing = tmp_path / "missing.hdf5"
    assert "missing.hdf5" in refused(3, *train(missing, tmp_path / "runs"))
    assert "missing.hdf5" in refused(3, "data", "check", missing)


def test_hdf5_files_that_are_no_dataset(refused: Refused, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    whole = tmp_path / "whole.hdf5"
    with h5py.File(whole, "w") as file:
        for name, array in pendulum_arrays().items():
            file[name] = array
    truncated = tmp_path / "truncated.hdf5"
    truncated.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    empty = tmp_path / "empty.hdf5"
    empty.write_bytes(b"")
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["weights"] = np.zeros(3)
    linked = tmp_path / "linked.hdf5"
    with h5py.File(linked, "w") as file:
        for name, array in pendulum_arrays().items():
            if name != "observations":
                file[name] = array
        file["observations"] = h5py.ExternalLink("whole.hdf5", "/observations")
    for path in (truncated, empty, other, linked):
        assert path.name in refused(3, *train(path, tmp_path / "runs"))
        assert path.name in refused(3, "data", "show", path)


def test_arrays_that_disagree_or_are_not_numbers(refused: Refused, tmp_path: Path) -> None:
    arrays = pendulum_arrays()
    rewards = arrays["rewards"].copy()
    rewards[5] = np.nan
    faults = {
        "short": {"actions": arrays["actions"][:-7]},
        "nan": {"rewards": rewards},
        "pickled": {"observations": np.array([{"a": 1}] * len(rewards))},
    }
    for name, changed in faults.items():
        path = write_pendulum(tmp_path / f"{name}.npz", **changed)
        assert refused(3, *train(path, tmp_path / "runs"))


def test_dimensions_that_the_environment_does_not_have(
    pendulum: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = np.zeros((24 * EPISODE_STEPS, 4), np.float32) + np.arange(4)
    path = write_pendulum(tmp_path / "wide.npz", observations=wide)
    assert main(train(path, tmp_path / "runs", "--name", "wide")) == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert "(4,)" in last
    assert "(3,)" in last
    assert not (tmp_path / "runs" / "wide" / "eval").exists()


def test_a_minari_episode_without_steps(refused: Refused, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "minari" / "data"
    folder.mkdir(parents=True)
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for number, steps in enumerate((5, 0, 5)):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = steps
            group["observations"] = np.random.default_rng(number).random((steps + 1, 3))
            group["actions"] = np.zeros((steps, 1))
            group["rewards"] = np.zeros(steps)
            group["terminations"] = np.zeros(steps, bool)
            group["truncations"] = np.arange(steps) == steps - 1
    box = {"type": "Box", "dtype": "float32", "shape": [3], "low": [-9.0] * 3, "high": [9.0] * 3}
    action = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}
    metadata = {
        "dataset_id": "a/b-v0",
        "total_episodes": 3,
        "total_steps": 10,
        "data_format": "hdf5",
        "observation_space": json.dumps(box),
        "action_space": json.dumps(action),
        "minari_version": "0.5.4",
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    assert "D003" in refused(3, *train(folder.parent, tmp_path / "runs"))


# ---- runs and checkpoints ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made")
    assert main(train(pendulum, output, "--name", "run")) == 0
    return output / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run of one's own to damage."""
    return Path(shutil.copytree(made, tmp_path / "runs" / "run", symlinks=True))


def test_a_run_folder_that_exists(refused: Refused, run: Path, pendulum: Path) -> None:
    said = refused(7, *train(pendulum, run.parent, "--name", "run"))
    assert f"--resume {run}" in said


def test_an_output_that_is_no_folder(refused: Refused, pendulum: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(7, *train(pendulum, tmp_path / "file"))


def test_a_run_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    refused(4, "evaluate", tmp_path / "nowhere")
    refused(4, "train", "--resume", tmp_path / "nowhere")
    refused(3, "report", tmp_path / "nowhere")


def test_a_flipped_bit(refused: Refused, run: Path) -> None:
    file = run / "checkpoints" / "step-00000012" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-9] ^= 0b100
    file.write_bytes(data)
    assert "model.safetensors" in refused(4, "evaluate", run)


def test_a_missing_tensor(refused: Refused, run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = run / "checkpoints" / "step-00000012"
    (folder / "manifest.json").unlink()  # a checkpoint whose author left it out
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    assert name in refused(4, "evaluate", run)


def test_a_checkpoint_that_is_not_there(refused: Refused, run: Path) -> None:
    assert "step-00000012" in refused(4, "evaluate", run, "--checkpoint", "5")
    assert "'last', 'best'" in refused(2, "evaluate", run, "--checkpoint", "newest")


def test_an_environment_that_is_not_there(refused: Refused, run: Path) -> None:
    assert "Pendulum-v1" in refused(5, "evaluate", run, "--env-id", "Pendulm-v1")


def test_a_resumed_run_keeps_what_its_updates_are(refused: Refused, run: Path) -> None:
    for changed in ("--training.learning-rate=1", "--model.width=64", "--seed=3", "--steps=99"):
        refused(2, "train", "--resume", run, changed)
