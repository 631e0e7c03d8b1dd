"""Each rule fires on data that break it, names the place, and is silent on sound data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trajlm.core.errors import DataError
from trajlm.core.spec import Box, Discrete, MultiDiscrete
from trajlm.core.trajectory import Trajectory
from trajlm.data.doctor import check, file_numbers
from trajlm.data.findings import RULES, Finding
from trajlm.data.guard import enforce, with_verdict
from trajlm.data.sources.arrays import from_arrays
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore


def sound(**changes: Any) -> TrajectoryStore:
    """Twelve episodes of five steps that break no rule; `changes`: (episode, step) -> value."""
    rng = np.random.default_rng(0)
    trajectories = []
    for number in range(12):
        columns = {
            "observations": rng.standard_normal((6, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (5, 2)).astype(np.float32),
            "rewards": rng.standard_normal(5).astype(np.float32) + number,
        }
        for column, places in changes.items():
            for (episode, row), value in places.items():
                if episode == number:
                    columns[column][row] = value
        trajectories.append(Trajectory(columns=columns, terminated=True, truncated=False))
    bounds = {"low": (-1.0, -1.0), "high": (1.0, 1.0)}
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=Box(shape=(3,)), action_space=Box(shape=(2,), **bounds)
    )


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def with_episode(store: TrajectoryStore, **keywords: Any) -> TrajectoryStore:
    columns = dict(store.episode(0).columns)
    columns |= keywords.pop("columns", {})
    return store.extend([Trajectory(columns=columns, **keywords)])


def test_sound_data_have_no_findings() -> None:
    assert check(sound(), asked_returns=[30.0], max_timestep=5) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float) -> None:
    store = sound(observations={(3, 5): [0.0, value, 0.0], (7, 0): [value, 0.0, 0.0]})
    finding = only([f for f in check(store) if f.rule == "D001"])
    assert finding.message.startswith(f"observations[1] is {value} at episode 3, step 5; 2 rows")
    assert (finding.severity, finding.episodes) == ("error", (3, 7))


def test_a_view_is_examined_by_itself_and_named_by_the_file() -> None:
    store = sound(rewards={(3, 1): np.nan, (9, 2): np.nan})
    assert [f for f in check(store.select(np.array([0, 1, 2]))) if f.rule == "D001"] == []
    view = store.select(np.array([11, 9, 0]))
    finding = only([f for f in check(view) if f.rule == "D001"])
    assert finding.message.startswith("rewards is nan at episode 9, step 2; 1 rows")
    extended = store.extend([store.episode(9)])
    assert file_numbers(extended, np.array([12])).tolist() == [12]
    assert only([f for f in check(extended) if f.rule == "D001"]).episodes == (3, 9, 12)


def test_empty_episodes() -> None:
    empty = {"observations": np.zeros((1, 3)), "actions": np.zeros((0, 2)), "rewards": np.zeros(0)}
    columns = {name: array.astype(np.float32) for name, array in empty.items()}
    store = with_episode(sound(), columns=columns, terminated=True, truncated=False)
    finding = only(check(store))
    assert (finding.rule, finding.severity, finding.episodes) == ("D003", "error", (12,))
    store = sound(rewards={(3, 1): np.nan}).select(np.arange(4)).extend([store.episode(12)])
    assert "episode 3, step 1" in next(f for f in check(store) if f.rule == "D001").message


def test_end_flags() -> None:
    both = with_episode(sound(), terminated=True, truncated=True)
    assert only(check(both)).rule == "D004"
    neither = with_episode(sound(), terminated=False, truncated=False, unfinished=True)
    finding = only(check(neither))
    assert (finding.rule, finding.severity, finding.episodes) == ("D005", "warning", (12,))


def test_real_actions_outside_the_bounds_warn() -> None:
    store = sound(actions={(2, 3): [0.0, -1.5], (4, 0): [2.0, 0.0]})
    finding = only(check(store))
    assert (finding.rule, finding.severity, finding.episodes) == ("D007", "warning", (2, 4))
    assert finding.message.startswith("actions[1] is -1.5 at episode 2, step 3, outside -1")
    assert check(sound(actions={(2, 3): [0.0, 1.000001]})) == []


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (Discrete(n=3), np.array([0, 1, 3])),
        (Discrete(n=3, start=1), np.array([1, 0, 3])),
        (MultiDiscrete(nvec=(2, 2)), np.array([[0, 0], [1, 1], [0, 2]])),
    ],
)
def test_actions_that_do_not_exist_are_errors(
    space: Discrete | MultiDiscrete, actions: np.ndarray
) -> None:
    arrays = {
        "observations": np.arange(3.0)[:, None],
        "actions": actions,
        "rewards": np.arange(3.0),
        "terminals": np.array([False, False, True]),
    }
    store = with_verdict(from_arrays(arrays, action_space=space))
    finding = only([f for f in check(store) if f.rule == "D007"])
    assert finding.severity == "error"
    with pytest.raises(DataError, match="D007"):
        enforce(store, "refuse")


def test_constant_dimensions() -> None:
    constant = {(e, t): [1.0, 5.0, e + t] for e in range(12) for t in range(6)}
    finding = only(check(sound(observations=constant)))
    assert finding.rule == "D008"
    assert finding.message == "observations[0], observations[1] never change (value 1)"


def test_episodes_longer_than_the_timestep_table() -> None:
    store = synthetic("box")
    longest = int(store.lengths.max())
    assert [f for f in check(store, max_timestep=longest) if f.rule == "D009"] == []
    finding = only([f for f in check(store, max_timestep=longest - 1) if f.rule == "D009"])
    assert finding.severity == "error"
    assert f"set max_timestep to {longest} or more" in finding.message


def test_asked_returns() -> None:
    store = sound()
    low, high = store.returns.min(), store.returns.max()
    assert check(store, asked_returns=[30.0]) == []
    findings = check(store, asked_returns=[low - 1, high + 1])
    assert [f.rule for f in findings] == ["D010", "D010"]
    assert "lies outside the data's" in findings[0].message
    sparse = with_episode(
        store, columns={"rewards": np.full(5, 100.0, np.float32)}, terminated=True, truncated=False
    )
    assert only(check(sparse, asked_returns=[300.0])).rule == "D012"


def test_few_episodes() -> None:
    assert only(check(sound().select(np.arange(5)))).rule == "D011"
    store = sound()
    segment = replace(
        store.segments[0],
        terminated=np.zeros(12, bool),
        unfinished=np.ones(12, bool),
    )
    findings = check(replace(store, segments=(segment,)), asked_returns=[3.0])
    assert [(f.rule, f.severity) for f in findings] == [("D011", "error"), ("D005", "warning")]


def test_errors_come_first_and_findings_are_plain_json() -> None:
    store = sound(rewards={(1, 1): np.nan}, actions={(0, 0): [3.0, 0.0]})
    findings = check(store)
    assert [f.severity for f in findings] == ["error", "warning"]
    assert [Finding.from_json(f.to_json()) for f in findings] == findings
    assert str(findings[0]).startswith("D001 error: rewards is nan")


def test_dropping_drops_all_bad_episodes_not_only_the_listed() -> None:
    store = synthetic("short", episodes=60)
    rewards = store.segments[0].columns["rewards"].copy()
    bad = np.arange(5, 50)
    rewards[store.segments[0].offsets[bad]] = np.inf
    segment = replace(store.segments[0], columns={**store.segments[0].columns, "rewards": rewards})
    kept = enforce(with_verdict(replace(store, segments=(segment,))), "drop-episode")
    assert kept.index[:, 1].tolist() == [*range(5), *range(50, 60)]
    assert kept.metadata["dropped"] == bad.tolist()


def test_dropping_everything_is_refused() -> None:
    everywhere = {(e, 0): np.nan for e in range(12)}
    with pytest.raises(DataError, match="no episode is left"):
        enforce(with_verdict(sound(rewards=everywhere)), "drop-episode")


def test_every_rule_is_described() -> None:
    assert sorted(RULES) == [f"D{number:03d}" for number in range(1, 14)]
    assert len(set(RULES.values())) == len(RULES)
