"""Shipped behaviours: their files, their actions, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trajlm.collect import behaviour as module
from trajlm.collect.behaviour import (
    FOLDER,
    behaviour_index,
    body_facts,
    load_behaviour,
    read_behaviour,
)
from trajlm.core import seeding
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.core.protocols import Policy, Step

SHIPPED = [(body, name) for body, facts in behaviour_index().items() for name in facts["snapshots"]]
BODIES = list(behaviour_index())


def a_step(observation: np.ndarray, *, seeds: list[int], is_first: list[bool]) -> Step:
    count = len(observation)
    return Step(
        observation=observation,
        reward=np.zeros(count),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        is_first=np.array(is_first),
        seed=np.array(seeds, np.int64),
    )


def observations(policy: Policy, *, count: int, scale: float = 3.0) -> np.ndarray:
    size = len(policy.actor.mean)  # type: ignore[attr-defined]
    return np.random.default_rng(0).normal(0, scale, (count, size))


def file_of(tmp_path: Path, **changes: np.ndarray | None) -> Path:
    """HalfCheetah's expert with arrays replaced, added or (None) left out."""
    source = FOLDER / "halfcheetah" / "expert.safetensors"
    tensors = load_file(source) | changes
    facts = read_behaviour(source).facts
    path = tmp_path / "expert.safetensors"
    kept = {name: array for name, array in tensors.items() if array is not None}
    save_file(kept, path, metadata={"trajlm": json.dumps(facts)})
    return path


# ---- what is shipped ----------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
def test_every_body_has_expert_medium_and_eight_on_the_way(body: str) -> None:
    facts = body_facts(body)
    names = ["expert", "medium", *(f"replay-{number}" for number in range(8))]
    assert sorted(facts["snapshots"]) == names
    steps = [facts["snapshots"][f"replay-{number}"]["steps"] for number in range(8)]
    assert steps == sorted(set(steps))
    assert facts["random_return"] < facts["medium_return"] < facts["expert_return"]
    assert facts["expert_return"] == facts["snapshots"]["expert"]["return_mean"]


@pytest.mark.parametrize(("body", "name"), SHIPPED)
def test_a_shipped_file_is_small_and_reads(body: str, name: str) -> None:
    path = FOLDER / body / f"{name}.safetensors"
    assert path.stat().st_size < 100_000
    policy = load_behaviour(body, name)
    assert isinstance(policy, Policy)
    assert policy.name == f"{body}/{name}"
    assert [weight.shape[0] for weight in policy.actor.weights[:-1]] == [64, 64]
    assert policy.facts["return_mean"] == body_facts(body)["snapshots"][name]["return_mean"]


@pytest.mark.parametrize("body", BODIES)
def test_no_file_is_shipped_that_the_index_does_not_know(body: str) -> None:
    files = {path.stem for path in (FOLDER / body).iterdir()}
    assert files == set(body_facts(body)["snapshots"])


# ---- actions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "name"), [(BODIES[0], "expert"), (BODIES[-1], "medium")])
def test_actions_are_the_clipped_sample_around_the_network(body: str, name: str) -> None:
    policy = load_behaviour(body, name)
    observation = observations(policy, count=5)
    tensors = load_file(FOLDER / body / f"{name}.safetensors")
    expected = []
    for row, seed in zip(observation, range(5), strict=True):  # float64, one at a time
        hidden = (row - tensors["observation_mean"]) / tensors["observation_std"]
        hidden = np.clip(hidden, -tensors["observation_clip"], tensors["observation_clip"])
        for layer in range(3):
            hidden = tensors[f"layers.{layer}.weight"] @ hidden + tensors[f"layers.{layer}.bias"]
            if layer < 2 and policy.actor.activation == "relu":
                hidden = np.maximum(hidden, 0)
            elif layer < 2:
                hidden = np.tanh(hidden)
        noise = seeding.normal(np.array([seed]), np.array([0]), lanes=len(hidden))[0]
        expected.append(np.clip(hidden + np.exp(tensors["log_std"]) * noise, -1, 1))
    step = a_step(observation, seeds=list(range(5)), is_first=[True] * 5)
    _, actions = policy.act(policy.initial(5), step)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["random", "expert"])
def test_draws_follow_the_episode_seed_and_step_alone(name: str) -> None:
    """A slot draws alike alone, in a batch, in another order and after a restart."""
    policy = load_behaviour("halfcheetah", name)
    observation = observations(load_behaviour("halfcheetah", "expert"), count=3, scale=0.1)
    seeds = [7, 8, 9]
    carry = policy.initial(3)
    batched = []
    for first in (True, False):
        carry, actions = policy.act(carry, a_step(observation, seeds=seeds, is_first=[first] * 3))
        batched.append(actions)
    assert not np.allclose(batched[0], batched[1])
    order = np.array([2, 0])
    moved = policy.initial(3)
    moved, _ = policy.act(moved, a_step(observation, seeds=seeds, is_first=[True] * 3))
    some = a_step(observation[order], seeds=[9, 7], is_first=[False, True])
    _, actions = policy.act(moved.select(order), some)
    np.testing.assert_allclose(actions[0], batched[1][2], atol=1e-6)
    np.testing.assert_allclose(actions[1], batched[0][0], atol=1e-6)


@pytest.mark.parametrize("name", ["random", "medium"])
def test_actions_stay_within_the_bounds(name: str) -> None:
    policy = load_behaviour("halfcheetah", name)
    observation = observations(load_behaviour("halfcheetah", "medium"), count=500, scale=30.0)
    step = a_step(observation, seeds=list(range(500)), is_first=[True] * 500)
    _, actions = policy.act(policy.initial(500), step)
    assert actions.shape == (500, 6)
    assert np.abs(actions).max() <= 1.0
    if name == "random":
        assert abs(actions.mean()) < 0.05
        assert abs(actions.std() - 3**-0.5) < 0.02


@pytest.mark.parametrize("name", ["random", "expert"])
def test_a_deterministic_behaviour_does_not_draw(name: str) -> None:
    policy = load_behaviour("halfcheetah", name, deterministic=True)
    observation = observations(load_behaviour("halfcheetah", "expert"), count=1).repeat(2, axis=0)
    step = a_step(observation, seeds=[1, 2], is_first=[True, True])
    _, actions = policy.act(policy.initial(2), step)
    np.testing.assert_array_equal(actions[0], actions[1])


def test_observations_of_another_size_are_refused() -> None:
    policy = load_behaviour("halfcheetah", "expert")
    step = a_step(np.zeros((2, 11)), seeds=[0, 1], is_first=[True, True])
    with pytest.raises(UsageError, match=r"takes observations \(N, 17\), found \(2, 11\)"):
        policy.act(policy.initial(2), step)


def test_normal_draws_are_those_of_the_counter() -> None:
    """The written-out form gives Box and Muller over `counter_bits`, bit for bit."""
    seed, step = np.array([3, 2**40, 5]), np.array([0, 1, 999])
    for stream in (0, 4):
        first, second = (
            seeding.uniform(seed, step, lanes=6, stream=2 * stream + half) for half in (0, 1)
        )
        bits = seeding.counter_bits(seed[:, None], step[:, None], np.arange(6)[None], 2 * stream)
        np.testing.assert_array_equal(first, ((bits >> np.uint64(11)).astype(float) + 0.5) / 2**53)
        expected = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
        np.testing.assert_array_equal(seeding.normal(seed, step, lanes=6, stream=stream), expected)


def test_torch_is_not_loaded() -> None:
    code = (
        "import sys, trajlm.collect.worker, trajlm.collect.collector as c;"
        "c.load_behaviour('halfcheetah', 'expert'); sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# ---- what is refused ----------------------------------------------------------------------------


def test_names_are_suggested() -> None:
    with pytest.raises(UsageError, match="unknown body 'halfcheeta'; did you mean 'halfcheetah'"):
        load_behaviour("halfcheeta", "expert")
    with pytest.raises(UsageError, match="no behaviour 'experts'; did you mean 'expert'"):
        load_behaviour("halfcheetah", "experts")


ONES = np.ones(17, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_std": None}, "arrays missing or unknown: log_std"),
        ({"extra": ONES}, "arrays missing or unknown: extra"),
        ({"layers.1.bias": None}, "arrays missing or unknown: layers.1.bias"),
        ({"layers.1.weight": None}, "arrays missing or unknown"),
        ({"observation_std": ONES * np.nan}, "'observation_std' is not finite float32"),
        ({"observation_std": ONES.astype(np.float64)}, "'observation_std' is not finite float32"),
        ({"observation_std": ONES * 0}, "std and clip must be positive"),
        ({"observation_std": ONES[:16]}, r"'observation_std' has shape \(16,\), not \(17,\)"),
        ({"observation_mean": ONES[:11]}, r"has shape \(17,\), not \(11,\)"),
        ({"observation_clip": ONES[:0]}, r"'observation_clip' has shape \(0,\), not \(1,\)"),
        ({"log_std": ONES[:3]}, r"'log_std' has shape \(3,\), not \(6,\)"),
        ({"action_high": -np.ones(6, np.float32)}, "'action_low' is not below 'action_high'"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_behaviour(file_of(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "expert.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "missing or not JSON"),
        ({"trajlm": "{"}, "missing or not JSON"),
        ({"trajlm": "[" * 20_000}, "missing or not JSON"),
        ({"trajlm": "[]"}, "format is not"),
        ({"trajlm": '{"format": "trajlm.behaviour/9"}'}, "format is not"),
        (
            {"trajlm": '{"format": "trajlm.behaviour/1", "activation": "gelu"}'},
            "activation 'gelu' is not one of",
        ),
        (
            {"trajlm": '{"format": "trajlm.behaviour/1", "activation": "relu"}'},
            "names no env_id",
        ),
    ],
)
def test_a_file_whose_facts_do_not_fit_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    path = tmp_path / "expert.safetensors"
    save_file(load_file(FOLDER / "halfcheetah" / "expert.safetensors"), path, metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        read_behaviour(path)


def test_a_cut_empty_large_or_missing_file_is_refused(tmp_path: Path) -> None:
    whole = (FOLDER / "halfcheetah" / "expert.safetensors").read_bytes()
    path = tmp_path / "expert.safetensors"
    for content in (whole[:-5], b"", b"\xff" * 100, whole[:4]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not readable as safetensors"):
            read_behaviour(path)
    path.write_bytes(bytes(module.MAX_FILE_BYTES + 1))
    with pytest.raises(CheckpointError, match="larger than"):
        read_behaviour(path)
    with pytest.raises(CheckpointError, match="not readable"):
        read_behaviour(tmp_path / "none.safetensors")


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "behaviours")
    path = tmp_path / "behaviours" / "halfcheetah" / "expert.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="differs from its SHA-256"):
        load_behaviour("halfcheetah", "expert", folder=tmp_path / "behaviours")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"halfcheetah": 1}'])
def test_a_broken_index_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        load_behaviour("halfcheetah", "expert", folder=tmp_path)
