"""Rollouts: fixed episodes a slot, slots that leave the batch, failures that stay alone.

The toy policy has memory, so a wrong carry, a wrong slot or a missed reset shows in its actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest

from trajlm.core.errors import EnvironmentFault, UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.envs.vector import VectorEnvironment
from trajlm.evaluation.rollout import rollout


@dataclass(frozen=True, kw_only=True)
class Memory:
    target: np.ndarray
    trace: np.ndarray

    def select(self, index):
        return Memory(target=self.target[index], trace=self.trace[index])


class Echo:
    """Action = a decaying memory of rewards and observations, and the return still asked for."""

    def __init__(self, size: int, *, bad=None) -> None:
        self.size, self.bad = size, bad
        self.batches: list[int] = []
        self.steps: list[Step] = []

    def initial(self, num_envs, condition=None):
        target = np.zeros(num_envs) if condition is None else condition.target_return
        assert len(target) == num_envs
        return Memory(target=np.asarray(target, float), trace=np.zeros(num_envs))

    def act(self, carry, step):
        self.batches.append(len(step.seed))
        self.steps.append(step)
        trace = np.where(step.is_first, 0.0, 0.9 * carry.trace)
        trace = trace + step.reward + step.observation.sum(axis=1) + 0.01 * carry.target
        lanes = np.arange(1, self.size + 1)
        actions = np.sin(trace[:, None] * lanes).astype(np.float32)
        if self.bad is not None:
            actions[np.isin(step.seed, self.bad) & ~step.is_first] = np.nan
        return Memory(target=carry.target, trace=trace), actions


class Counter(gymnasium.Env):
    """Seed s: reward k in step k; s % 7 + 1 steps. Seed 13 raises in step 2, 17 at reset."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    stepped: list[int] = []  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed == 17:
            raise RuntimeError("no such start")
        self.number, self.steps = seed, 0
        return np.array([seed, 0.0]), {}

    def step(self, action):
        Counter.stepped.append(self.number)
        self.steps += 1
        if self.number == 13 and self.steps == 2:
            raise ValueError("broke")
        reward = np.nan if self.number == 19 else float(self.steps)
        over = self.steps > self.number % 7
        return np.array([self.number, self.steps]), reward, over, False, {}


def counters(num_envs: int) -> VectorEnvironment:
    return VectorEnvironment(
        Counter, env_id="Counter-v0", num_envs=num_envs, tolerate_failures=True
    )


def test_every_slot_runs_its_own_seeds_and_no_reset_step_is_counted():
    seeds = [[0, 6, 3], [5, 5, 5], [2]]
    Counter.stepped.clear()
    policy = Echo(1)
    run = rollout(policy, environment=counters(3), seeds=seeds)
    for slot, row in enumerate(seeds):
        assert [record.seed for record in run.episodes[slot]] == row
        for number, record in enumerate(run.episodes[slot]):
            steps = record.seed % 7 + 1
            assert (record.slot, record.number) == (slot, number)
            assert record.length == steps
            assert record.episode_return == steps * (steps + 1) / 2
            assert record.terminated
            assert not record.failed
    assert run.steps == len(Counter.stepped) == sum(s % 7 + 1 for row in seeds for s in row)
    for step in policy.steps:
        assert (step.reward[step.is_first] == 0).all()


def test_the_policy_never_computes_for_finished_slots():
    policy = Echo(1)
    run = rollout(policy, environment=counters(3), seeds=[[0], [3], [6]])
    assert policy.batches == [3, 2, 2, 2, 1, 1, 1]
    assert run.forwards == 7


def test_slots_without_episodes_are_left_out_from_the_start():
    policy = Echo(1)
    conditions = Condition(target_return=np.array([1.0, 2.0, 3.0]))
    run = rollout(policy, environment=counters(3), seeds=[[], [3], [1]], conditions=conditions)
    assert policy.batches[0] == 2
    assert [len(row) for row in run.episodes] == [0, 1, 1]


def test_an_environment_that_raises_fails_its_episode_with_its_seed_and_the_others_go_on():
    run = rollout(Echo(1), environment=counters(2), seeds=[[13, 4], [17, 5, 17]])
    broken, sound = run.episodes[0]
    assert broken.failed
    assert "broke" in broken.failure
    assert "step 2" in broken.failure
    assert (sound.seed, sound.episode_return, sound.failed) == (4, 15.0, False)
    assert [r.failed for r in run.episodes[1]] == [True, False, True]
    assert run.episodes[1][1].episode_return == 21.0
    assert not broken.terminated
    assert not broken.truncated


def test_an_action_that_is_not_finite_fails_its_episode_and_is_never_executed():
    Counter.stepped.clear()
    run = rollout(Echo(1, bad=[4]), environment=counters(2), seeds=[[4, 6], [6]])
    assert "action is not finite" in run.episodes[0][0].failure
    assert run.episodes[0][0].length == 1
    assert Counter.stepped.count(4) == 1
    assert [r.failed for r in run.episodes[0] + run.episodes[1]] == [True, False, False]
    assert run.episodes[0][1].episode_return == run.episodes[1][0].episode_return == 28.0


def test_a_reward_that_is_not_finite_fails_its_episode():
    run = rollout(Echo(1), environment=counters(1), seeds=[[19, 3]])
    assert "not finite" in run.episodes[0][0].failure
    assert run.episodes[0][1].episode_return == 10.0


def test_actions_of_a_wrong_shape_are_refused_with_both_shapes():
    with pytest.raises(EnvironmentFault, match=r"\(1, 3\).*\(1, 1\)"):
        rollout(Echo(3), environment=counters(1), seeds=[[1]])
    with pytest.raises(UsageError, match="2 lists of seeds for 1 environments"):
        rollout(Echo(1), environment=counters(1), seeds=[[1], [2]])


def test_recorded_episodes_are_trajectories_for_the_store():
    run = rollout(Echo(1), environment=counters(2), seeds=[[3, 13], [6]], record=True)
    episode = run.episodes[0][0].trajectory
    assert episode.columns["observations"].tolist() == [[3, k] for k in range(5)]
    assert episode.columns["rewards"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert episode.columns["actions"].shape == (4, 1)
    assert (episode.terminated, episode.truncated, episode.seed) == (True, False, 3)
    assert run.episodes[0][1].trajectory is None
    assert len(run.episodes[1][0].trajectory) == 7


def test_progress_rises_to_one():
    shares: list[float] = []
    rollout(Echo(1), environment=counters(2), seeds=[[3, 1], [6]], progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"])
def test_a_batched_run_equals_runs_one_by_one(env_id, monkeypatch):
    """The toy policy computes row by row, so even closed-loop MuJoCo agrees bit for bit."""
    pytest.importorskip("mujoco")
    from trajlm.envs import make

    entry = make.registered(env_id)
    monkeypatch.setattr(entry, "max_episode_steps", 80)
    seeds = [[11, 12], [12, 11], [13]]
    targets = np.array([3000.0, 500.0, 3000.0])
    size = make.make_vector(env_id, num_envs=1).action_space.size
    policy = Echo(size)
    batched = rollout(
        policy, env_id=env_id, seeds=seeds, conditions=Condition(target_return=targets), record=True
    )
    for slot, row in enumerate(seeds):
        for number, seed in enumerate(row):
            alone = rollout(
                Echo(size),
                env_id=env_id,
                seeds=[[seed]],
                conditions=Condition(target_return=targets[[slot]]),
                record=True,
            ).episodes[0][0]
            together = batched.episodes[slot][number]
            assert together.length == alone.length
            assert together.episode_return == alone.episode_return
            for name, column in alone.trajectory.columns.items():
                assert np.array_equal(together.trajectory.columns[name], column), name
    if env_id != "HalfCheetah-v5":
        assert len({r.length for r in sum(batched.episodes, [])}) > 1  # noqa: RUF017


def test_replaying_a_batched_run_one_by_one_gives_the_same_actions():
    run = rollout(
        Echo(1),
        environment=counters(3),
        seeds=[[6, 2], [5, 0], [4, 3]],
        conditions=Condition(target_return=np.array([1.0, 2.0, 3.0])),
        record=True,
    )
    for slot, records in enumerate(run.episodes):
        for record in records:
            actions = replay(Echo(1), record.trajectory, target=slot + 1.0)
            assert np.array_equal(actions, record.trajectory.columns["actions"])


def replay(policy, trajectory, *, target: float) -> np.ndarray:
    """The actions a policy gives, alone, to an episode's observations and rewards: (T, ...)."""
    carry = policy.initial(1, Condition(target_return=np.array([target])))
    rewards = [0.0, *trajectory.columns["rewards"]]
    actions = []
    for index in range(len(trajectory)):
        step = Step.of(
            trajectory.columns["observations"][index],
            reward=rewards[index],
            is_first=index == 0,
            seed=trajectory.seed,
        )
        carry, action = policy.act(carry, step)
        actions.append(action[0])
    return np.stack(actions)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5"])
def test_replaying_a_batched_decision_transformer_run_gives_the_same_actions(env_id, monkeypatch):
    """To 1e-5 at every step: the windows, targets and timesteps of each slot are its own."""
    pytest.importorskip("mujoco")
    torch = pytest.importorskip("torch")
    from trajlm.algorithms.decision_transformer.config import Config
    from trajlm.algorithms.decision_transformer.model import Model
    from trajlm.core.spec import DataSpec
    from trajlm.envs import make

    monkeypatch.setattr(make.registered(env_id), "max_episode_steps", 60)
    probe = make.make_vector(env_id, num_envs=1)
    spec = DataSpec(
        observation=probe.observation_space,
        action=probe.action_space,
        horizon=60,
        env_id=env_id,
        return_min=0.0,
        return_max=1000.0,
    )
    torch.manual_seed(0)
    config = Config(context_length=8, num_layers=2, width=32)
    model = Model.build(config, spec, {"return_scale": np.array(1000.0)})
    with torch.no_grad():  # weights with which actions depend on everything the window holds
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    policy = model.policy()
    targets = np.array([3000.0, 300.0, 3000.0, 50.0])
    run = rollout(
        policy,
        env_id=env_id,
        seeds=[[21, 22], [21, 23], [24], [25, 26, 27]],
        conditions=Condition(target_return=targets),
        record=True,
    )
    moved = []
    for slot, records in enumerate(run.episodes):
        for record in records:
            trajectory = record.trajectory
            assert not record.failed
            actions = replay(policy, trajectory, target=targets[slot])
            np.testing.assert_allclose(
                actions, trajectory.columns["actions"], rtol=0, atol=1e-5, strict=True
            )
            moved.append(actions.std(axis=0).mean())
    assert min(moved) > 1e-3, "the policy must react for this test to mean anything"
    first = [records[0].trajectory.columns["actions"][0] for records in run.episodes[:2]]
    assert not np.allclose(*first, atol=1e-4), "the target must matter"
