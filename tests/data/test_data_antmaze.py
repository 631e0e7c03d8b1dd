"""AntMaze in its two published forms, D4RL's and Minari's: read, and learned from by the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, DictSpace
from trajlm.core.trajectory import Trajectory
from trajlm.data.load import load_dataset
from trajlm.data.sources.minari import write
from trajlm.data.store import TrajectoryStore
from trajlm.runs.config import resolve
from trajlm.runs.guide import load_guide
from trajlm.sequence.loader import Loader
from trajlm.training.checkpoint import save_artefact

h5py = pytest.importorskip("h5py")
STEPS, EPISODES = 14, 4
SMALLER = {
    "implicit_q_learning": {"model": {"width": 16}},
    "trajectory_transformer": {
        "model": {"width": 16, "num_layers": 1, "num_heads": 2, "transitions": 3, "num_bins": 8},
        "policy": {"horizon": 2, "beam_width": 2, "context": 2},
    },
}


def entries(size: int, *, episode: int) -> np.ndarray:
    return np.random.default_rng(episode).normal(size=(STEPS + 1, size)).astype(np.float32)


def d4rl_file(path: Path) -> Path:
    """Flat arrays as of `ant_maze_v2`: places and joints side by side, the goal in the infos alone,
    no next observations. The first episode reaches its goal, a time limit ends the others."""
    rows = STEPS * EPISODES
    ends, reached = np.zeros(rows, bool), np.zeros(rows, bool)
    reached[STEPS - 1] = True
    ends[STEPS - 1 :: STEPS] = True
    actions = [entries(8, episode=9 + n)[:STEPS] for n in range(EPISODES)]
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate(
            [entries(29, episode=n)[:STEPS] for n in range(EPISODES)]
        )
        file["actions"] = np.tanh(np.concatenate(actions))
        file["rewards"] = reached.astype(np.float32)
        file["terminals"] = reached
        file["timeouts"] = ends & ~reached
        file["infos/goal"] = np.zeros((rows, 2), np.float32)
        file["infos/qpos"] = np.zeros((rows, 15), np.float32)
        file["infos/qvel"] = np.zeros((rows, 14), np.float32)
    return path


def minari_folder(root: Path) -> Path:
    """Goal-dict observations as of `D4RL/antmaze/*-v1`, T+1 of them an episode."""
    sizes = {"achieved_goal": 2, "desired_goal": 2, "observation": 27}

    def episode(number: int) -> Trajectory:
        columns: dict[str, Any] = {
            f"observations/{name}": entries(size, episode=number) for name, size in sizes.items()
        }
        columns["actions"] = np.tanh(entries(8, episode=9 + number)[:STEPS])
        columns["rewards"] = np.zeros(STEPS, np.float32)
        columns["rewards"][-1] = number == 0
        return Trajectory(columns=columns, terminated=number == 0, truncated=number != 0)

    return write(
        [episode(number) for number in range(EPISODES)],
        dataset_id="D4RL/antmaze/umaze-v1",
        observation_space=DictSpace(
            subspaces={name: Box(shape=(size,)) for name, size in sizes.items()}
        ),
        action_space=Box(shape=(8,), low=(-1.0,) * 8, high=(1.0,) * 8),
        env_id="AntMaze_UMaze-v4",
        root=root,
    )


@pytest.fixture(scope="module", params=["d4rl", "minari"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("antmaze")
    name = "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5"
    written = d4rl_file(root / name) if request.param == "d4rl" else minari_folder(root)
    return load_dataset(str(written), cache=False)


def built(algorithm: str, store: TrajectoryStore):
    config = resolve(f"{algorithm}/antmaze-paper", SMALLER[algorithm])
    model_class = config.entry.algorithm_class
    prepared = model_class.prepare(config.model, store)
    torch.manual_seed(0)
    model = model_class.build(config.model, store.spec, prepared.fitted)
    loader = Loader(
        prepared.store, model_class.windows(config.model, store.spec), batch_size=8, seed=0
    )
    return config, model, loader


def test_both_forms_are_read(store: TrajectoryStore) -> None:
    assert store.lengths.tolist() == [STEPS] * EPISODES
    assert store.terminated.tolist() == [True, False, False, False]
    assert store.truncated.tolist() == [False, True, True, True]
    assert store.returns.tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("algorithm", sorted(SMALLER))
def test_the_recipe_learns_from_both_forms(algorithm: str, store: TrajectoryStore) -> None:
    _, model, loader = built(algorithm, store)
    loss = model(loader.batch(0))
    loss.value.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(loss.value) and gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_success_is_not_punished(store: TrajectoryStore) -> None:
    config, model, _ = built("trajectory_transformer", store)
    assert config.model.termination_penalty is None
    low = model.discretizer.edges[model.layout.reward].min()
    assert float(low) >= 0.0


def test_the_critic_guides_the_search(store: TrajectoryStore, tmp_path: Path) -> None:
    config, planner, _ = built("trajectory_transformer", store)
    _, critic, _ = built("implicit_q_learning", store)
    save_artefact(critic, tmp_path / "critic")
    guide = load_guide(tmp_path / "critic", model=planner).critic
    size = planner.layout.observation_size
    rows = np.zeros((3, size)), np.zeros((3, 8))
    assert guide.value(*rows).shape == (3,)
    assert planner.policy(config.policy, guide=guide).scorer.guide is guide


def test_without_next_observations_the_usual_recipe_refuses(tmp_path: Path) -> None:
    store = load_dataset(d4rl_file(tmp_path / "antmaze.hdf5"), cache=False)
    config = resolve("implicit_q_learning/maze")
    with pytest.raises(DataError, match="no next observations"):
        config.entry.algorithm_class.prepare(config.model, store)
