"""The vector environment against single environments and Gymnasium's own, bit for bit."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trajlm.core.errors import EnvironmentFault
from trajlm.envs.vector import VectorEnvironment

mujoco = pytest.importorskip("mujoco")

from trajlm.envs.make import make_environment, make_vector  # noqa: E402

BODIES = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]


class Counter(gymnasium.Env):
    """Observation [seed, steps]; reward the step's number; ends after `seed % 5 + 1` steps.

    Raises in step 2 of seed 13 and at the reset of seed 17; gives a NaN reward with seed 19.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed == 17:
            raise RuntimeError("no such start")
        self.number, self.steps = seed, 0
        return np.array([seed, 0.0]), {}

    def step(self, action):
        assert action.shape == (1,)
        self.steps += 1
        if self.number == 13 and self.steps == 2:
            raise ValueError("broke\nsecond line")
        reward = np.nan if self.number == 19 else float(self.steps)
        over = self.steps > self.number % 5
        return np.array([self.number, self.steps]), reward, over, False, {}


def counters(num_envs: int, **options) -> VectorEnvironment:
    return VectorEnvironment(Counter, env_id="Counter-v0", num_envs=num_envs, **options)


@pytest.mark.parametrize("env_id", BODIES)
def test_recorded_actions_give_the_single_environments_numbers_bit_for_bit(env_id):
    """Open loop: slots that end (Hopper, Walker) are left out while the others go on."""
    generator = np.random.default_rng(0)
    slots, steps = 4, 60
    seeds = np.array([3, 1, 4, 1])
    vector = make_vector(env_id, num_envs=slots)
    size = vector.action_space.shape[0]
    actions = generator.uniform(-1, 1, (steps, slots, size)).astype(np.float32)
    actions[:, 3] = actions[:, 1]

    alone = []
    for slot in range(slots):
        environment = make_environment(env_id)
        observation, _ = environment.reset(seed=int(seeds[slot]))
        rows = [(observation, 0.0, False)]
        for action in actions[:, slot]:
            observation, reward, terminated, truncated, _ = environment.step(action)
            rows.append((observation, reward, terminated))
            if terminated or truncated:
                break
        alone.append(rows)

    for _ in range(2):  # the second time in environments that have been used
        step = vector.reset(seeds=seeds)
        active = np.ones(slots, bool)
        lengths = np.zeros(slots, int)
        for row in range(steps + 1):
            for slot in np.flatnonzero(active):
                observation, reward, terminated = alone[slot][row]
                assert np.array_equal(step.observation[slot], observation)
                assert step.reward[slot] == reward
                assert step.terminated[slot] == terminated
                assert step.is_first[slot] == (row == 0)
                lengths[slot] = row
            active &= ~(step.terminated | step.truncated)
            if row < steps:
                step = vector.step(actions[row], active=active)
        assert lengths.tolist() == [len(rows) - 1 for rows in alone]
    if env_id == "Hopper-v5":
        assert len(set(lengths.tolist())) > 1, "the test needs episodes of different lengths"


def test_is_gymnasiums_vector_environment_with_autoreset_disabled_and_a_reset_mask():
    ours = make_vector("Hopper-v5", num_envs=3)
    theirs = SyncVectorEnv(
        [lambda: make_environment("Hopper-v5")] * 3, autoreset_mode=AutoresetMode.DISABLED
    )
    generator = np.random.default_rng(1)
    observation, _ = theirs.reset(seed=[5, 6, 7])
    step = ours.reset(seeds=np.array([5, 6, 7]))
    resets = 0
    for turn in range(80):
        assert np.array_equal(step.observation, observation)
        done = step.terminated | step.truncated
        if done.any():
            resets += 1
            seeds = np.full(3, 100 + turn)
            observation, _ = theirs.reset(seed=seeds.tolist(), options={"reset_mask": done})
            before = step
            step = ours.reset(done, seeds=seeds)
            assert np.array_equal(step.observation, observation)
            assert np.array_equal(step.is_first[done], np.ones(done.sum(), bool))
            assert (step.reward[done] == 0).all()
            assert not step.terminated[done].any()
            assert np.array_equal(step.reward[~done], before.reward[~done])
            assert (step.seed[done] == 100 + turn).all()
        actions = generator.uniform(-1, 1, (3, 3)).astype(np.float32)
        step = ours.step(actions)
        observation, reward, terminated, truncated, _ = theirs.step(actions)
        assert np.array_equal(step.reward, reward)
        assert np.array_equal(step.terminated, terminated)
        assert np.array_equal(step.truncated, truncated)
    assert resets > 0


def test_an_inactive_slot_keeps_what_it_showed_and_is_not_stepped():
    vector = counters(2)
    vector.reset(seeds=np.array([4, 9]))
    step = vector.step(np.zeros((2, 1), np.float32), active=np.array([True, False]))
    assert step.observation.tolist() == [[4, 1], [9, 0]]
    assert step.is_first.tolist() == [False, True]
    step = vector.step(np.zeros((2, 1), np.float32))
    assert step.observation.tolist() == [[4, 2], [9, 1]]
    assert step.is_first.tolist() == [False, False]


def test_steps_are_copies():
    vector = counters(1)
    first = vector.reset(seeds=np.array([4]))
    vector.step(np.zeros((1, 1), np.float32))
    assert first.observation.tolist() == [[4, 0]]
    assert first.is_first.tolist() == [True]


def test_an_exception_is_a_typed_fault_with_its_seed_in_one_line():
    vector = counters(2)
    vector.reset(seeds=np.array([4, 13]))
    vector.step(np.zeros((2, 1), np.float32))
    with pytest.raises(EnvironmentFault, match=r"Counter-v0 raised in step, seed 13: .*broke$"):
        vector.step(np.zeros((2, 1), np.float32))


def test_a_tolerated_failure_leaves_the_others_alone_and_its_slot_is_rebuilt():
    vector = counters(3, tolerate_failures=True)
    vector.reset(seeds=np.array([14, 13, 17]))
    assert vector.failures == {2: "RuntimeError: no such start"}
    active = np.array([True, True, False])
    vector.step(np.zeros((3, 1), np.float32), active=active)
    step = vector.step(np.zeros((3, 1), np.float32), active=active)
    assert vector.failures[1] == "ValueError: broke"
    assert step.reward.tolist()[:2] == [2.0, 0.0]
    assert step.truncated.tolist()[:2] == [False, True]
    broken = vector.environments[1]
    step = vector.reset(np.array([False, True, True]), seeds=np.array([0, 3, 3]))
    assert vector.failures == {}
    assert vector.environments[1] is not broken
    assert step.observation.tolist() == [[14, 2], [3, 0], [3, 0]]


def test_dictionaries_of_observations_are_named_by_leaf():
    class Nested(Counter):
        observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (2, 2, 3), np.uint8),
                "body": gymnasium.spaces.Dict({"speed": gymnasium.spaces.Discrete(5)}),
            }
        )

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.show(), {}

        def step(self, action):
            result = super().step(action)
            return self.show(), *result[1:]

        def show(self):
            return {
                "image": np.full((2, 2, 3), self.number, np.uint8),
                "body": {"speed": self.steps},
            }

    vector = VectorEnvironment(Nested, env_id="Nested-v0", num_envs=2)
    vector.reset(seeds=np.array([7, 9]))
    step = vector.step(np.zeros((2, 1), np.float32))
    assert set(step.observation) == {"image", "body/speed"}
    assert step.observation["image"].dtype == np.uint8
    assert step.observation["image"][:, 0, 0, 0].tolist() == [7, 9]
    assert step.observation["body/speed"].tolist() == [1, 1]
