"""The Trajectory Transformer's data and loss: what is a token, and which tokens count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model, layout_of, transition_rows
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete
from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore
from trajlm.nn.discretizer import Discretizer, encode_rows, fit_bins
from trajlm.planning.beam import Transition
from trajlm.planning.guidance import RewardScorer
from trajlm.sequence.loader import Gatherer
from trajlm.sequence.windows import Windows

SMALL = Config(transitions=5, num_bins=8, width=16, num_layers=2, num_heads=2, dropout=0.0)
OBSERVATION, ACTION = Box(shape=(2,)), Box(shape=(1,), low=(-1.0,), high=(1.0,))
SLOTS = 5
TERMINAL, LIMIT, UNFINISHED = "terminal", "limit", "unfinished"


def episode(steps: int, end: str, *, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    return Trajectory(
        columns={
            "observations": rng.normal(size=(steps + 1, 2)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
            "rewards": rng.normal(size=steps).astype(np.float32),
        },
        terminated=end == TERMINAL,
        truncated=end == LIMIT,
        unfinished=end == UNFINISHED,
        seed=seed,
    )


def store_of(*ends: tuple[int, str]) -> TrajectoryStore:
    episodes = [episode(steps, end, seed=number) for number, (steps, end) in enumerate(ends)]
    return TrajectoryStore.from_trajectories(
        episodes, observation_space=OBSERVATION, action_space=ACTION
    )


def built(store: TrajectoryStore, config: Config = SMALL):
    """A model with weights far from their initial values, and batches of chosen windows."""
    prepared = Model.prepare(config, store)
    torch.manual_seed(0)
    model = Model.build(config, store.spec, prepared.fitted)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    gatherer = Gatherer(prepared.store, Model.windows(config, store.spec))

    def batch(*windows: tuple[int, int]):
        return gatherer.batch(Windows(*(np.array(part) for part in zip(*windows, strict=True))))

    return model, batch


# ---- which tokens count -------------------------------------------------------------------------


def test_what_counts() -> None:
    model, batch = built(store_of((3, TERMINAL), (3, LIMIT), (9, LIMIT)))
    given_batch = batch((0, 0), (1, 0), (2, 1), (0, 2), (1, 2))
    tokens, counted = model._window(given_batch)
    real = [3, 3, 5, 1, 1]
    rows = tokens.view(5, 5, SLOTS)
    for row, steps in enumerate(real):
        assert (rows[row, :steps] < model.stop).all()
        assert (rows[row, steps:] == model.stop).all()
    # After a terminal every stop token is a target; after a time limit nothing is.
    targets = [5, 3, 5, 5, 1]
    for row, steps in enumerate(targets):
        assert counted[row].tolist() == [place + 1 < steps * SLOTS for place in range(24)]


def test_what_counts_as_published() -> None:
    """Everything before the longest episode's end does, one token early."""
    config = replace(SMALL, fidelity="published")
    model, batch = built(store_of((3, TERMINAL), (3, LIMIT), (6, LIMIT)), config)
    _, counted = model._window(batch((0, 0), (1, 0), (2, 4), (1, 2)))
    for row, steps in enumerate([5, 5, 2, 4]):
        assert counted[row].tolist() == [place < steps * SLOTS for place in range(24)]


@pytest.mark.parametrize("fidelity", ["corrected", "published"])
def test_the_loss_written_out(fidelity: str) -> None:
    config = replace(
        SMALL, fidelity=fidelity, action_weight=5.0, reward_weight=0.5, value_weight=2.0
    )
    model, batch = built(store_of((3, TERMINAL), (3, LIMIT), (6, LIMIT)), config)
    model.double().eval()
    windows = batch((0, 0), (1, 0), (2, 4), (0, 1), (1, 2))
    tokens, counted = model._window(windows)
    with torch.no_grad():
        logits = model.logits(model.hidden(tokens[:, :-1]))
        loss = model(windows)
    total, number = 0.0, 0
    by_slot: dict[int, list[tuple[float, bool]]] = {slot: [] for slot in range(SLOTS)}
    weights = [1.0, 1.0, 5.0, 0.5, 2.0]
    for row in range(len(tokens)):
        for place in range(24):
            if not counted[row, place]:
                continue
            target, slot = int(tokens[row, place + 1]), (place + 1) % SLOTS
            nats = -torch.log_softmax(logits[row, place], dim=-1)[target].item()
            total, number = total + weights[slot] * nats, number + 1
            by_slot[slot].append((nats, int(logits[row, place].argmax()) == target))
    number = counted.numel() if fidelity == "published" else number
    assert loss.value.dtype == torch.float64
    assert loss.value.item() == pytest.approx(total / number, rel=1e-12)
    names = ["observation_0", "observation_1", "action_0", "reward", "value"]
    means = {name: np.mean(by_slot[slot], axis=0) for slot, name in enumerate(names)}
    for name in names:
        assert loss.metrics[f"nats/{name}"].item() == pytest.approx(means[name][0])
        assert loss.metrics[f"accuracy/{name}"].item() == pytest.approx(means[name][1])
    assert loss.metrics["reward_nats"].item() == pytest.approx(means["reward"][0])
    observed = (means["observation_0"][0] + means["observation_1"][0]) / 2
    assert loss.metrics["observation_nats"].item() == pytest.approx(observed)


def gradients(model: Model, windows) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(windows).value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("end", [TERMINAL, LIMIT])
def test_padding_changes_nothing(end: str) -> None:
    model, batch = built(store_of((3, end), (7, LIMIT)))
    model.double()
    windows = batch((0, 0), (0, 2))
    noise = {name: column.clone() for name, column in windows.columns.items()}
    noise["tokens"][~windows.mask] = 7
    noise["terminals"][~windows.mask] = 1
    changed = replace(windows, columns=noise)
    assert model(changed).value.item() == model(windows).value.item()
    found = gradients(model, changed)
    for name, gradient in gradients(model, windows).items():
        assert torch.equal(gradient, found[name])


def test_nothing_past_a_time_limit_is_trained() -> None:
    """No gradient at positions there, none to the stop's row and none from its logits but as what
    was not chosen; all of these after a terminal."""
    for end in (LIMIT, TERMINAL):
        model, batch = built(store_of((3, end), (7, LIMIT)))
        found = gradients(model, batch((0, 0)))
        past = found["position"][3 * SLOTS - 1 :].abs().sum()
        stop = found["embed_token.weight"][-1].abs().sum()
        assert (past > 0, stop > 0) == (end == TERMINAL, end == TERMINAL)
        assert found["position"][: 3 * SLOTS - 1].abs().sum(1).min() > 0


# ---- what is seen -------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ["none", "last"])
def test_a_value_token_is_seen_at_its_own_position_alone(goal: str) -> None:
    model, _ = built(store_of((6, LIMIT), (6, LIMIT)), replace(SMALL, goal=goal))
    model.double().eval()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 8, (1, 24), generator=generator)
    aim = torch.randint(0, 8, (1, 2), generator=generator) if goal != "none" else None

    def logits(of: torch.Tensor, at: torch.Tensor | None = aim) -> torch.Tensor:
        with torch.no_grad():
            return model.logits(model.hidden(of, goal=at))[0]

    before = logits(tokens)
    for place in range(24):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 3) % 8
        moved = (logits(other) != before).any(-1).nonzero()[:, 0].tolist()
        if place % SLOTS == SLOTS - 1:
            assert moved == [place]
        else:  # all later positions but none before
            assert moved == list(range(place, 24))
    if aim is not None:
        for entry in range(2):
            other = aim.clone()
            other[0, entry] = (other[0, entry] + 3) % 8
            assert (logits(tokens, other) != before).any(-1).all()


def test_each_slot_has_its_own_rows_and_stops_share_one() -> None:
    model, _ = built(store_of((6, LIMIT)))
    assert model.embed_token.num_embeddings == 8 * SLOTS + 1
    slots, places = torch.arange(SLOTS), torch.arange(SLOTS)
    tokens = torch.stack([torch.full((SLOTS,), 3), torch.full((SLOTS,), model.stop)])
    found = model.embed(tokens, slots, places) - model.position[:SLOTS]
    rows = model.embed_token.weight
    torch.testing.assert_close(found[0], rows[torch.arange(SLOTS) * 8 + 3])
    torch.testing.assert_close(found[1], rows[-1:].expand(SLOTS, -1))
    for slot in range(SLOTS):
        one = model.embed_slot(tokens[:, slot], slot, slot)
        assert torch.equal(
            one, model.embed(tokens[:, slot : slot + 1], *[slots[slot, None]] * 2)[:, 0]
        )


# ---- from data to tokens ------------------------------------------------------------------------


def test_the_penalty_stands_at_real_terminals_before_values_are_computed() -> None:
    store = store_of((4, TERMINAL), (3, LIMIT))
    layout, segment = layout_of(SMALL, OBSERVATION, ACTION), store.segments[0]
    recorded = segment.columns["rewards"].copy()
    rows = transition_rows(SMALL, layout, segment)
    assert rows[:, 3].tolist() == [*recorded[:3], -100.0, *recorded[4:]]
    assert rows[2, 4] == -100.0
    assert rows[3, 4] == rows[6, 4] == 0.0
    assert rows[1, 4] == pytest.approx(recorded[2] + 0.99 * -100.0, rel=1e-6)
    np.testing.assert_array_equal(segment.columns["rewards"], recorded)
    kept = transition_rows(replace(SMALL, termination_penalty=None), layout, segment)
    np.testing.assert_array_equal(kept[:, 3], recorded)
    # Observations of T + 1 rows an episode: the last one is nobody's.
    np.testing.assert_array_equal(rows[4:, :2], store.rows("observations", 1)[:3])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    st.booleans(),
)
def test_a_plans_score_is_the_discounted_return(rewards, discount, terminal) -> None:
    """Of a model that is sure of a recorded episode, after every transition (8)."""
    config = replace(SMALL, discount=discount, termination_penalty=None)
    steps = len(rewards)
    recorded = episode(steps, TERMINAL if terminal else LIMIT)
    columns = {**recorded.columns, "rewards": np.array(rewards, np.float32)}
    store = TrajectoryStore.from_trajectories(
        [replace(recorded, columns=columns)], observation_space=OBSERVATION, action_space=ACTION
    )
    layout = layout_of(config, OBSERVATION, ACTION)
    rows = transition_rows(config, layout, store.segments[0]).astype(np.float64)
    # A bin for every value there is.
    bins = Discretizer(SLOTS, 64).double()
    for slot in range(SLOTS):
        values = np.unique(rows[:, slot])
        edges = np.concatenate([values, np.full(65 - len(values), values[-1] + 1.0)])
        bins.edges[slot] = torch.from_numpy(edges)
        bins.values[slot, : len(values)] = torch.from_numpy(values)
    tokens = bins.encode(torch.from_numpy(rows))
    scorer = RewardScorer(layout=layout, discretizer=bins, discount=discount)
    memory = scorer.initial(1, like=bins.values)
    expected = sum(discount**i * reward for i, reward in enumerate(rewards))
    for depth in range(steps):
        watched = {
            slot: torch.nn.functional.one_hot(tokens[depth : depth + 1, slot], 65).double().log()
            for slot in (3, 4)
        }
        seen = Transition(
            previous=tokens[depth : depth + 1], watched=watched, alive=torch.ones(1).bool()
        )
        memory, scores = scorer(depth, memory, seen)
        assert scores.item() == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_bins_are_those_of_the_training_episodes_alone() -> None:
    store = store_of((9, LIMIT), (9, TERMINAL), (9, LIMIT), (9, UNFINISHED), (9, LIMIT))
    kept, aside = store.select(np.array([0, 2, 3])), store.select(np.array([1, 4]))
    prepared = Model.prepare(SMALL, kept)
    assert len(prepared.store) == 2  # the unfinished one is not trained on
    layout = layout_of(SMALL, OBSERVATION, ACTION)
    rows = transition_rows(SMALL, layout, store.segments[0])
    training = np.concatenate([rows[:9], rows[18:27]])
    expected = fit_bins(training, num_bins=8, method="quantile")
    for name in ("edges", "values"):
        np.testing.assert_array_equal(prepared.fitted[f"bins/{name}"], expected[name])
    held_out = Model.prepare_held_out(SMALL, aside, prepared.fitted)
    for number, first in enumerate((9, 36)):
        np.testing.assert_array_equal(
            held_out.rows("tokens", number), encode_rows(rows[first : first + 9], expected["edges"])
        )
    assert held_out.rows("terminals", 0).tolist() == [0] * 8 + [1]
    assert not held_out.rows("terminals", 1).any()
    own = Model.prepare(SMALL, aside).store
    assert (own.rows("tokens", 0) != held_out.rows("tokens", 0)).any()


@pytest.mark.parametrize("goal", ["last", "future"])
def test_goals(goal: str) -> None:
    config = replace(SMALL, goal=goal)
    store = store_of((9, LIMIT), (1, TERMINAL), (40, LIMIT)).extend([episode(6, LIMIT, seed=9)])
    prepared = Model.prepare(config, store).store
    assert Model.windows(config, store.spec).columns == ("tokens", "terminals", "goals")
    later = set()
    for number, steps in enumerate((9, 1, 40, 6)):
        goals = prepared.rows("goals", number)
        observed = prepared.rows("tokens", number)[:, :2]
        if goal == "last":
            np.testing.assert_array_equal(goals, np.repeat(observed[-1:], steps, axis=0))
            continue
        for step in range(steps):
            after = observed[min(step + 1, steps - 1) :].tolist()
            assert goals[step].tolist() in after
            later.add(after.index(goals[step].tolist()))
    assert goal == "last" or len(later) > 5
    again = Model.prepare(config, store).store
    np.testing.assert_array_equal(again.rows("goals", 2), prepared.rows("goals", 2))


def test_a_goal_may_be_the_first_entries_of_an_observation() -> None:
    config = replace(SMALL, goal="last", goal_size=1)
    store = store_of((9, LIMIT), (12, LIMIT))
    prepared = Model.prepare(config, store).store
    whole = Model.prepare(replace(config, goal_size=None), store).store
    for number in range(2):
        goals = prepared.rows("goals", number)
        np.testing.assert_array_equal(goals, whole.rows("goals", number)[:, :1])
    model, batch = built(store, config)
    assert model.embed_goal.num_embeddings == config.num_bins
    assert torch.isfinite(model(batch((0, 0), (1, 2))).value)
    told = Condition(goal=np.array([[0.5], [-0.5]]))
    assert model.policy(search="likelihood").initial(2, told).goal.tolist() == [[0.5], [-0.5]]
    with pytest.raises(UsageError, match=r"goal_size: 3 is not in 1\.\.2"):
        Model.prepare(replace(config, goal_size=3), store)


def test_a_window_has_the_goal_of_its_first_step() -> None:
    model, batch = built(store_of((9, LIMIT), (9, LIMIT)), replace(SMALL, goal="future"))
    model.eval()
    windows = batch((0, 2))
    loss = model(windows).value.item()
    columns = {name: column.clone() for name, column in windows.columns.items()}
    columns["goals"][:, 1:] = 0
    assert model(replace(windows, columns=columns)).value.item() == loss
    columns["goals"][:, 0] = (columns["goals"][:, 0] + 1) % 8
    assert model(replace(windows, columns=columns)).value.item() != loss


def test_float64_is_float32_but_for_rounding() -> None:
    model, batch = built(synthetic("box", episodes=4, seed=0))
    windows = batch((0, 0), (1, 3), (2, 18))
    single = model.eval()(windows).value
    double = model.double()(windows).value
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


# ---- kinds of spaces ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (Discrete(n=7, start=3), Discrete(n=4, start=-2)),
        (MultiDiscrete(nvec=(3, 8)), MultiDiscrete(nvec=(2, 5), dtype="int32")),
        (Discrete(n=8), Box(shape=(2,), dtype="int32", low=(-3.0, 0.0), high=(3.0, 200.0))),
    ],
)
def test_integers_come_back_as_they_were(observation, action) -> None:
    rng = np.random.default_rng(0)

    def drawn(space, rows: int) -> np.ndarray:
        if isinstance(space, Discrete):
            return rng.integers(space.start, space.start + space.n, rows)
        high = space.nvec if isinstance(space, MultiDiscrete) else np.array(space.high) + 1
        low = 0 if isinstance(space, MultiDiscrete) else np.array(space.low)
        return rng.integers(low, high, (rows, len(high))).astype(space.dtype)

    columns = {
        "observations": drawn(observation, 41),
        "actions": drawn(action, 40),
        "rewards": np.zeros(40, np.float32),
    }
    recorded = Trajectory(columns=columns, terminated=False, truncated=True)
    store = TrajectoryStore.from_trajectories(
        [recorded], observation_space=observation, action_space=action
    )
    prepared = Model.prepare(SMALL, store)
    model = Model.build(SMALL, store.spec, prepared.fitted)
    tokens = torch.from_numpy(prepared.store.rows("tokens", 0).astype(np.int64))
    decoded = model.discretizer.decode(tokens)
    actions = model.layout.actions_of(decoded[:, model.layout.actions].numpy())
    assert actions.dtype == action.dtype
    if isinstance(action, Box):  # more numbers than bins: the nearest to what a bin stands for
        np.testing.assert_array_equal(actions, np.rint(decoded.numpy()[:, model.layout.actions]))
    else:
        np.testing.assert_array_equal(actions, columns["actions"])
        entries = decoded[:, : model.layout.observation_size].numpy()
        np.testing.assert_array_equal(entries, columns["observations"][:40].reshape(40, -1))


def test_spaces_without_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="images have no tokens"):
        layout_of(SMALL, Box(shape=(64, 64)), ACTION)
    with pytest.raises(UsageError, match=r"observation_size: 3 is not in 1\.\.2"):
        layout_of(replace(SMALL, observation_size=3), OBSERVATION, ACTION)
    with pytest.raises(UsageError, match="actions"):
        layout_of(SMALL, OBSERVATION, DictSpace(subspaces={"a": ACTION}))


def test_the_first_entries_of_an_observation() -> None:
    config = replace(SMALL, observation_size=1)
    model, batch = built(store_of((6, LIMIT), (6, LIMIT)), config)
    assert model.layout.size == 4
    assert batch((0, 0)).columns["tokens"].shape == (1, 5, 4)
    assert torch.isfinite(model(batch((0, 0))).value)


@pytest.mark.parametrize("goal", ["none", "last"])
def test_ordered_first_weights_make_neighbouring_bins_alike(goal: str) -> None:
    store = store_of((30, TERMINAL), (30, LIMIT), (30, LIMIT))
    config = replace(SMALL, num_bins=40, goal=goal, first_weights="ordered")
    prepared = Model.prepare(config, store)

    def weights(first: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        built = Model.build(
            replace(config, first_weights=first), store.spec, prepared.fitted
        ).state_dict()
        found = {"token": built["embed_token.weight"][:-1], "head": built["head.weight"][:, :-1]}
        if goal != "none":
            found["goal"] = built["embed_goal.weight"]
        return {name: each.reshape(-1, 40, SMALL.width) for name, each in found.items()}

    def likeness(rows: torch.Tensor) -> float:
        return torch.cosine_similarity(rows[:, 1:], rows[:, :-1], dim=-1).mean().item()

    for name, rows in weights("ordered").items():
        assert likeness(rows) > 0.9
        assert abs(likeness(weights("independent")[name])) < 0.2
