"""Implicit Q-learning: its fixed point, its losses, the ends of episodes, and plans that it guides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trajlm.algorithms.implicit_q_learning.config import Config
from trajlm.algorithms.implicit_q_learning.model import Model
from trajlm.core.discovery import algorithms
from trajlm.core.errors import CheckpointError, DataError, UsageError
from trajlm.core.protocols import Step
from trajlm.core.spec import Box, Discrete
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.batch import SequenceBatch
from trajlm.sequence.loader import validation_batches
from trajlm.training.config import TrainingConfig
from trajlm.training.trainer import Trainer

STATES, ACTIONS, DISCOUNT, EXPECTILE = 4, 3, 0.7, 0.8


def walks() -> list[Trajectory]:
    """Random walks over 4 states: an action moves on by its number; the last state's action 2 ends
    the episode, 6 steps cut it. Rewards have noise."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(30):
        states, actions, rewards, ended = [int(generator.integers(STATES))], [], [], False
        while not ended and len(actions) < 6:
            state, action = states[-1], int(generator.choice(ACTIONS, p=[0.5, 0.3, 0.2]))
            ended = state == STATES - 1 and action == 2
            actions.append(action)
            rewards.append(state - action + generator.normal() + 3.0 * ended)
            states.append((state + action) % STATES)
        columns = {"observations": states, "actions": actions, "rewards": rewards}
        made.append(
            Trajectory(
                columns={name: np.array(column) for name, column in columns.items()},
                terminated=ended,
                truncated=not ended,
            )
        )
    return made


def store_of(trajectories: list[Trajectory]) -> TrajectoryStore:
    return TrajectoryStore.from_trajectories(
        trajectories, observation_space=Discrete(n=STATES), action_space=Discrete(n=ACTIONS)
    )


def expectile_of(values: np.ndarray, expectile: float) -> float:
    """The root of E |expectile - 1(x < m)| (x - m), by bisection."""
    low, high = values.min(), values.max()
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.where(values > middle, expectile, 1 - expectile)
        low, high = (middle, high) if (weights * (values - middle)).sum() > 0 else (low, middle)
    return float(low)


def fixed_point(trajectories: list[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """Q (S, A) and V (S,) of the walks' own steps, by iteration to the end."""
    steps = []
    for walk in trajectories:
        seen, acted = walk.columns["observations"], walk.columns["actions"]
        ends = [walk.terminated and i == len(walk) - 1 for i in range(len(walk))]
        steps += zip(seen[:-1], acted, walk.columns["rewards"], seen[1:], ends, strict=True)
    state, action, reward, after, end = (np.array(column) for column in zip(*steps, strict=True))
    q, v = np.zeros((STATES, ACTIONS)), np.zeros(STATES)
    for _ in range(150):
        wanted = reward + DISCOUNT * np.where(end, 0.0, v[after])
        for s, a in np.ndindex(STATES, ACTIONS):
            q[s, a] = wanted[(state == s) & (action == a)].mean()
        v = np.array([expectile_of(q[s, action[state == s]], EXPECTILE) for s in range(STATES)])
    return q, v


@dataclass(frozen=True)
class Whole:
    """Every step of a store in each batch."""

    only: SequenceBatch

    def batch(self, step: int) -> SequenceBatch:
        return self.only


def whole_batch(config: Config, store: TrajectoryStore) -> SequenceBatch:
    request = Model.windows(config, store.spec)
    (batch,) = validation_batches(store, request, batch_size=100_000)
    return batch


def build(store: TrajectoryStore, **facts: Any) -> tuple[Model, SequenceBatch]:
    """A model of the store and all its steps as one batch."""
    config = Config(**{"width": 64, "num_layers": 2, **facts})
    prepared = Model.prepare(config, store)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model.build(config, store.spec, prepared.fitted)
    return model, whole_batch(config, prepared.store)


def test_the_values_are_the_fixed_point_of_the_expectile(tmp_path: Path) -> None:
    """Terminations end what is counted, truncations do not."""
    trajectories = walks()
    facts = {"discount": DISCOUNT, "expectile": EXPECTILE, "target_rate": 0.2}
    model, batch = build(store_of(trajectories), **facts)
    training = TrainingConfig(
        steps=300, learning_rate=1e-2, weight_decay=0.0, warmup_steps=0,
        gradient_clip=None, validation_fraction=0.0, tensorboard=False, checkpoint_every=0,
        precision="float32",
    )  # fmt: skip
    Trainer(model, config=training, loader=Whole(batch), folder=tmp_path, seed=0).run()
    q, v = fixed_point(trajectories)
    state, action = (grid.ravel() for grid in np.indices((STATES, ACTIONS)))
    found = model.critic().value(state, action).numpy().reshape(q.shape)
    values = model.state_value(torch.arange(STATES)[:, None])[:, 0].detach().numpy()
    spread = np.ptp(q)
    assert np.abs(found - q).max() < 0.002 * spread
    assert np.abs(values - v).max() < 0.002 * spread
    # The policy is the data's, each action weighed by its advantage.
    taken, where = batch.actions[:, 0].numpy(), batch.columns["observations"][:, 0].numpy()
    counts = np.zeros(q.shape)
    np.add.at(counts, (where, taken), 1)
    shares = counts * np.exp(3.0 * (q - v[:, None])).clip(max=100.0)
    hidden = model.actor.hidden(torch.arange(STATES)[:, None], visible=torch.ones(STATES, 1))
    chosen = model.actor.head(hidden)[0].softmax(-1)[:, 0].detach().numpy()
    assert np.abs(chosen - shares / shares.sum(1, keepdims=True)).max() < 0.005


# ---- the losses ---------------------------------------------------------------------------------


def test_each_loss_is_its_equation() -> None:
    model, batch = build(synthetic("box", episodes=4, seed=0), expectile=0.9, largest_weight=2.0)
    model.eval()
    with torch.no_grad():
        for target in model.targets:  # otherwise equal to the critics
            for parameter in target.parameters():
                parameter.mul_(1.3)
        seen, acted = batch.observations, batch.actions
        apart = model.target_value(seen, acted) - model.state_value(seen)
        model.state_value.body[-1].bias += apart.median()  # so that there are both signs
        v, next_v = model.state_value(seen), model.state_value(batch.next_observations)
        target = torch.minimum(*(q(seen, acted) for q in model.targets))
        ahead = (target - v).double()
        below = (ahead < 0).double()
        value = ((0.9 - below).abs() * ahead**2).mean()
        end = batch.columns["terminals"].double()
        assert 0 < end.sum() < 4
        wanted = batch.columns["rewards"] + 0.99 * (1 - end) * next_v
        critic = sum(((q(seen, acted) - wanted) ** 2).mean() for q in model.critics)
        weight = torch.exp(3.0 * ahead)
        assert (weight > 2.0).any() and (weight < 2.0).any()
        head = model.actor.head
        mean = head.middle(model.actor.hidden(seen, visible=torch.ones_like(batch.mask)))
        normal = torch.distributions.Normal(mean, head.log_std.exp())
        policy = -(weight.clamp(max=2.0) * normal.log_prob(acted).mean(-1)).mean()
        for name, expected in {"value": value, "critic": critic, "policy": policy}.items():
            assert model(batch, phase=name).value.item() == pytest.approx(float(expected), rel=1e-5)
        total = float(value + critic + policy)
        assert model(batch).value.item() == pytest.approx(total, rel=1e-5)


def test_a_phase_moves_its_own_networks_and_the_target_follows(tmp_path: Path) -> None:
    model, batch = build(synthetic("box", episodes=4, seed=0), target_rate=0.25)
    parts = {"value": "state_value", "policy": "actor", "critic": "critics"}
    for phase, own in parts.items():
        model.zero_grad()
        model(batch, phase=phase).value.backward()
        moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
        assert moved == {own}
    before = [p.clone() for p in model.targets.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, model.critics.parameters(), strict=True))
    training = TrainingConfig(steps=1, warmup_steps=0, tensorboard=False)
    Trainer(model, config=training, loader=Whole(batch), folder=tmp_path, seed=0).run()
    pairs = zip(before, model.critics.parameters(), model.targets.parameters(), strict=True)
    for old, critic, target in pairs:
        torch.testing.assert_close(target, old + 0.25 * (critic.detach() - old))
        assert not torch.equal(critic, old)


# ---- the ends of episodes -----------------------------------------------------------------------


def without_last(trajectories: list[Trajectory]) -> list[Trajectory]:
    return [
        replace(t, columns={**t.columns, "observations": t.columns["observations"][: len(t)]})
        for t in trajectories
    ]


def test_data_without_next_observations_are_refused_or_their_last_steps_left_out() -> None:
    trajectories = walks()
    store = store_of(without_last(trajectories))
    cut = sum(t.truncated for t in trajectories)
    with pytest.raises(DataError, match=f"no next observations: .* its {cut} truncated episodes"):
        build(store)
    model, batch = build(store, without_next="drop")
    assert int((batch.columns["whole"] == 0).sum()) == cut
    changed = {name: column.clone() for name, column in batch.columns.items()}
    changed["rewards"][batch.columns["whole"] == 0] += 100.0
    model.eval()
    assert torch.equal(model(batch).value, model(replace(batch, columns=changed)).value)
    ended = [t for t in trajectories if t.terminated]
    _, batch = build(store_of(without_last(ended)))
    assert bool(batch.columns["whole"].all())


def test_unfinished_episodes_are_learned_from() -> None:
    unfinished = replace(walks()[0], terminated=False, truncated=False, unfinished=True)
    _, batch = build(store_of([unfinished, *walks()[1:3]]))
    assert int(batch.columns["whole"].sum()) == sum(len(t) for t in walks()[:3])


def test_returns_that_are_alike_give_no_scale() -> None:
    same = [replace(t, columns={**t.columns, "rewards": np.zeros(len(t))}) for t in walks()]
    with pytest.raises(DataError, match="all returns are alike"):
        build(store_of(same), reward_scaling="return_range")


# ---- as a guide ---------------------------------------------------------------------------------


def planner_of(store: TrajectoryStore) -> Any:
    entry = algorithms()["trajectory_transformer"]
    config = entry.config_module.Config(
        transitions=4, num_bins=20, width=16, num_layers=1, num_heads=1
    )
    prepared = entry.algorithm_class.prepare(config, store)
    torch.manual_seed(0)
    return entry.algorithm_class.build(config, store.spec, prepared.fitted)


def first_step(store: TrajectoryStore, count: int) -> Step:
    if "observations" in store.column_names:
        shown: Any = np.stack([store.rows("observations", e)[0] for e in range(count)])
    else:
        names = [n for n in store.column_names if n.startswith("observations/")]
        shown = {
            name.partition("/")[2]: np.stack([store.rows(name, e)[0] for e in range(count)])
            for name in names
        }
    zeros, no = np.zeros(count), np.zeros(count, bool)
    return Step(
        observation=shown, reward=zeros, terminated=no, truncated=no, is_first=~no,
        seed=np.arange(count),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["box", "bounds", "dict", "discrete", "multidiscrete"])
def test_it_guides_the_trajectory_transformers_search(kind: str) -> None:
    """A plan of one action is scored by the critic's word on it, and the best word wins."""
    store = synthetic(kind, episodes=12, seed=0)
    guide = build(store)[0].critic()
    model = planner_of(store)
    policy = model.policy(guide=guide, horizon=1, beam_width=4, num_samples=4, cdf_action=None)
    step = first_step(store, 2)
    carry, plans = policy.plan(policy.initial(2), step)
    tokens = torch.cat(
        [carry.observation[:, None].expand(-1, plans.tokens.shape[1], -1), plans.tokens], dim=2
    )
    rows = model.discretizer.decode(tokens.flatten(0, 1))
    observed, acted = rows[:, : model.layout.observation_size], rows[:, model.layout.actions]
    said = guide.value(observed, acted).view(plans.scores.shape)
    torch.testing.assert_close(plans.scores.float(), said)
    assert (plans.scores[:, :1] >= plans.scores).all()
    _, actions = policy.act(policy.initial(2), step)
    assert actions.shape[0] == 2


def test_what_a_critic_says_is_in_the_datas_units() -> None:
    store = synthetic("box", episodes=6, seed=0)
    plain, scaled = build(store)[0], build(store, reward_scaling="return_range")[0]
    rows = torch.randn(5, 4), torch.rand(5, 2)
    spread = np.ptp(store.returns)
    torch.testing.assert_close(
        scaled.value(*rows), plain.value(*rows) * float(spread) / 1000, rtol=1e-4, atol=1e-6
    )
    assert plain.value(rows[0].numpy(), rows[1].numpy()).tolist() == plain.value(*rows).tolist()


def test_a_critic_of_other_entries_is_refused() -> None:
    guide = build(synthetic("box", episodes=4, seed=0))[0].critic()
    with pytest.raises(CheckpointError, match="trained on 4 entries of an observation, not 3"):
        guide.value(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(CheckpointError, match="trained on 2 entries of an action, not 1"):
        guide.value(np.zeros((2, 4)), np.zeros(2))


def test_a_critic_whose_values_are_not_numbers_is_refused_by_the_search() -> None:
    store = synthetic("box", episodes=6, seed=0)
    guide = build(store)[0]
    with torch.no_grad():
        guide.targets[1].body[0].weight[0, 0] = torch.nan
    policy = planner_of(store).policy(guide=guide.critic())
    with pytest.raises(CheckpointError, match="guide: a value is not finite"):
        policy.act(policy.initial(1), first_step(store, 1))


# ---- acting -------------------------------------------------------------------------------------


def test_drawn_real_actions_have_the_learned_deviation() -> None:
    store = synthetic("bounds", episodes=6, seed=0)
    model, _ = build(store)
    with torch.no_grad():
        model.actor.head.log_std.fill_(-2.0)
    many = 4000
    step = first_step(store, 1).select(np.zeros(many, int))
    step = replace(step, seed=np.arange(many))
    middle = model.policy().act(model.policy().initial(many), step)[1]
    assert np.ptp(middle, axis=0).max() == 0
    policy = model.policy(temperature=0.5)
    drawn = policy.act(policy.initial(many), step)[1]
    space = store.action_space
    assert isinstance(space, Box) and space.low is not None and space.high is not None
    inside = (np.abs(middle[0]) < 1).all()  # far from the bounds of -2 and 3, so nothing is cut
    assert inside
    # Half a deviation of exp(-2), in half the bounds' width.
    wanted = 0.5 * np.exp(-2.0) * (space.high[0] - space.low[0]) / 2
    assert drawn.std(axis=0) == pytest.approx([wanted] * 2, rel=0.05)
    assert drawn.mean(axis=0) == pytest.approx(middle[0], abs=0.02)


def test_a_guide_is_refused() -> None:
    model, _ = build(synthetic("box", episodes=4, seed=0))
    with pytest.raises(UsageError, match="takes no guide"):
        model.policy(guide=model.critic())
