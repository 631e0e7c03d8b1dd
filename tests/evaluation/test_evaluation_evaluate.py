"""Evaluation: its plan, its rows and its files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from trajlm.core.errors import EnvironmentFault, StorageError, UsageError
from trajlm.core.spec import Box, DataSpec, Discrete
from trajlm.evaluation.config import EvaluationConfig
from trajlm.evaluation.evaluate import EPISODE_COLUMNS, evaluate, plan, write_results

SPEC = DataSpec(observation=Box(shape=(4,)), action=Discrete(n=2), horizon=500)


class Balancer:
    """Balances the pole when asked for more than 25, else pushes it over."""

    def initial(self, num_envs, condition=None):
        target = np.full(num_envs, 30.0) if condition is None else condition.target_return
        return Asked(np.asarray(target, float))

    def act(self, carry, step):
        angle = step.observation[:, 2] + 0.5 * step.observation[:, 3]
        actions = np.where(carry.asked > 25, angle > 0, angle < 0)
        return carry, actions.astype(np.int64)


class Asked:
    def __init__(self, asked):
        self.asked = asked

    def select(self, index):
        return Asked(self.asked[index])


@pytest.mark.parametrize(
    ("targets", "episodes", "num_envs", "slots"),
    [
        (2, 100, None, [200]),
        (4, 50, 64, [52]),
        (3, 5, 2, [2, 1]),
        (1, 7, 1, [1]),
        (2, 500, None, [250]),
    ],
)
def test_the_plan_runs_every_episode_of_every_target_once(targets, episodes, num_envs, slots):
    groups = plan(targets, episodes=episodes, num_envs=num_envs)
    assert [len(group) for group in groups] == slots
    runs = [(target, e) for group in groups for target, numbers in group for e in numbers]
    assert sorted(runs) == [(t, e) for t in range(targets) for e in range(episodes)]
    for group in groups:
        counts = {len(numbers) for _, numbers in group}
        assert max(counts) - min(counts) <= 1


def scored(**changes):
    options = {"spec": SPEC, "env_id": "CartPole-v1", "targets": [30.0, 10.0]}
    config = EvaluationConfig(episodes=6, **changes)
    return evaluate(Balancer(), config=config, dataset_reference=(10.0, 110.0), **options)


def test_rows_are_the_means_of_their_episodes():
    evaluation = scored()
    assert [row["target_return"] for row in evaluation.rows] == [30.0, 10.0]
    assert evaluation.rows[0]["return_mean"] > 2 * evaluation.rows[1]["return_mean"]
    for row in evaluation.rows:
        mine = [e for e in evaluation.episodes if e.target_return == row["target_return"]]
        returns = np.array([e.record.episode_return for e in mine])
        assert [e.record.seed for e in mine] == [1000 + k for k in range(6)]
        assert row["return_mean"] == returns.mean()
        assert row["return_std"] == returns.std()
        assert row["length_mean"] == np.mean([e.record.length for e in mine])
        assert row["return_interval"][0] <= row["return_mean"] <= row["return_interval"][1]
        assert row["dataset_score"] == pytest.approx(row["return_mean"] - 10.0)
        assert row["dataset_interval"][1] == pytest.approx(row["return_interval"][1] - 10.0)
        assert row["d4rl_score"] is None
        assert (row["env_id"], row["episodes"], row["failed"]) == ("CartPole-v1", 6, 0)
        assert "episodes" in row["interval_kind"]


def test_the_batch_size_changes_no_episode():
    """The policy computes row by row: only the order of the work may differ."""
    alone, batched = scored(num_envs=1), scored(num_envs=5)
    for one, other in zip(alone.episodes, batched.episodes, strict=True):
        assert (one.episode, one.target_return) == (other.episode, other.target_return)
        assert one.record.seed == other.record.seed
        assert one.record.episode_return == other.record.episode_return
    assert alone.rows == batched.rows


def test_files_hold_every_episode_and_the_protocol(tmp_path):
    evaluation = scored()
    path = write_results(tmp_path / "eval" / "step-1", evaluation)
    results = json.loads(path.read_text())
    assert results["format"] == "trajlm.results/1"
    protocol = results["protocol"]
    assert protocol["env_id"] == "CartPole-v1"
    assert protocol["targets"] == [30.0, 10.0]
    assert (protocol["episodes"], protocol["evaluation_seed"]) == (6, 1000)
    for name in ("gymnasium", "torch", "trajlm", "precision", "threads", "machine", "mujoco"):
        assert name in protocol
    assert results["timing"]["steps"] == sum(e.record.length for e in evaluation.episodes)
    with (path.parent / "episodes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == EPISODE_COLUMNS
    assert len(lines) == 12
    assert [int(line["seed"]) for line in lines[:6]] == list(range(1000, 1006))
    mean = np.mean([float(line["return"]) for line in lines[:6]])
    assert mean == results["rows"][0]["return_mean"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["episodes.csv", "results.json"]


def test_facts_of_the_run_join_the_protocol():
    evaluation = evaluate(
        Balancer(),
        spec=None,
        env_id="CartPole-v1",
        targets=[None],
        config=EvaluationConfig(episodes=2),
        facts={"recipe": "small", "threads": 7},
    )
    assert evaluation.protocol["recipe"] == "small"
    assert evaluation.protocol["threads"] == 7
    assert evaluation.rows[0]["target_return"] is None
    assert evaluation.rows[0]["dataset_score"] is None


def test_failed_episodes_are_counted_and_left_out(caplog):
    class OneOfTwo(Balancer):
        def act(self, carry, step):
            carry, actions = super().act(carry, step)
            return carry, np.where((step.seed == 1001), 7, actions)  # no such action

    options = {"spec": SPEC, "env_id": "CartPole-v1", "targets": [30.0]}
    evaluation = evaluate(OneOfTwo(), config=EvaluationConfig(episodes=3), **options)
    (row,) = evaluation.rows
    assert (row["episodes"], row["failed"]) == (3, 1)
    sound = [e.record.episode_return for e in evaluation.episodes if not e.record.failed]
    assert row["return_mean"] == np.mean(sound)
    assert "seed 1001" in caplog.text
    with pytest.raises(EnvironmentFault, match=r"1 of 3 episodes failed.*seed 1001"):
        evaluate(OneOfTwo(), config=EvaluationConfig(episodes=3, strict=True), **options)


def test_a_row_without_a_sound_episode_is_null_and_still_json(tmp_path):
    class Never(Balancer):
        def act(self, carry, step):
            return carry, np.full(len(step.seed), np.nan)

    evaluation = evaluate(
        Never(), spec=SPEC, env_id="CartPole-v1", targets=[1.0], config=EvaluationConfig(episodes=2)
    )
    (row,) = evaluation.rows
    assert row["failed"] == 2
    assert row["return_mean"] is row["return_interval"] is row["length_mean"] is None
    assert "NaN" not in write_results(tmp_path, evaluation).read_text()


def test_a_model_of_other_spaces_is_refused_before_anything_runs():
    other = DataSpec(observation=Box(shape=(17,)), action=Discrete(n=2), horizon=500)
    with pytest.raises(EnvironmentFault, match=r"Box\(4,\).*Box\(17,\)"):
        evaluate(
            Balancer(),
            spec=other,
            env_id="CartPole-v1",
            targets=[1.0],
            config=EvaluationConfig(episodes=1),
        )


def test_targets_and_configuration_are_checked():
    with pytest.raises(UsageError, match="targets"):
        evaluate(
            Balancer(),
            spec=SPEC,
            env_id="CartPole-v1",
            targets=[1.0, None],
            config=EvaluationConfig(),
        )
    for wrong in ({"episodes": -1}, {"num_envs": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            EvaluationConfig(**wrong)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "eval").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"eval: cannot be written"):
        write_results(tmp_path / "eval", scored())
