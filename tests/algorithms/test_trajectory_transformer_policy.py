"""How a Trajectory Transformer acts: what is remembered, planned and executed."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from trajlm.algorithms.trajectory_transformer.config import Config, PolicyConfig
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.core.protocols import Condition, Step
from trajlm.core.spec import Box, DataSpec
from trajlm.planning.cached import CachedModel

BINS, SLOTS = 6, 5
STOP = BINS
SPEC = DataSpec(
    observation=Box(shape=(2,)), action=Box(shape=(1,), low=(-1.0,), high=(1.0,)), horizon=100
)
# The map of slot s predicts the slot after it.
PREDICTS = {"observation": SLOTS - 1, "action": 1, "reward": 2, "value": 3}


def model_of(*, goal: str = "none", fidelity: str = "corrected", **facts) -> Model:
    """Random weights in float64; rewards and values are far from another."""
    config = Config(
        transitions=facts.pop("transitions", 6),
        num_bins=BINS,
        width=16,
        num_layers=2,
        num_heads=2,
        goal=goal,
        fidelity=fidelity,
    )
    torch.manual_seed(0)
    model = Model.build(config, replace(SPEC, **facts), {}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        edges = torch.linspace(-1, 1, BINS + 1)
        model.discretizer.edges.copy_(edges)
        model.discretizer.values.copy_((edges[1:] + edges[:-1]) / 2)
        model.discretizer.values[3] *= 3.0
        model.discretizer.values[4] *= 20.0
    return model


def certain(logits: dict[str, dict[int, float]], **facts) -> Model:
    """A model whose logits depend on the slot alone: 0 but for those given, {slot: {token: logit}}."""
    model = model_of(**facts)
    with torch.no_grad():
        model.transformer.norm.weight.zero_()
        model.transformer.norm.bias.fill_(1.0 / 16)
        model.head.weight.zero_()
        for kind, tokens in logits.items():
            for token, logit in tokens.items():
                model.head.weight[PREDICTS[kind], token] = logit
    return model


def steps_of(seeds: list[int], count: int, resets: dict[int, tuple[int, ...]] | None = None):
    """`count` steps of environments that heed no action; `resets`: of each slot, beside step 0."""
    resets = resets or {}
    rng = [np.random.default_rng(seed) for seed in seeds]
    for number in range(count):
        first = [number == 0 or number in resets.get(slot, ()) for slot in range(len(seeds))]
        yield Step(
            observation=np.stack([r.uniform(-1, 1, 2) for r in rng]).astype(np.float32),
            reward=np.array([0.0 if f else r.normal() for r, f in zip(rng, first, strict=True)]),
            terminated=np.zeros(len(seeds), bool),
            truncated=np.zeros(len(seeds), bool),
            is_first=np.array(first),
            seed=np.array(seeds)
            + 100 * np.array([number in resets.get(s, ()) for s in range(len(seeds))]),
        )


def one(step: Step, slot: int) -> Step:
    return step.select(np.array([slot]))


class Counting:
    """A policy's `token_model` that counts plans and how far they go."""

    def __init__(self) -> None:
        self.plans = 0

    def __call__(self, network, window, dtype):
        self.plans += 1
        return CachedModel(network, window, dtype)


def counted(policy):
    counter = Counting()
    return replace(policy, token_model=counter), counter


CASES = [
    {},
    {"window": "published", "context": 3, "horizon": 4},
    {"context": 1, "warm_start": True},
    {"replan_every": 3, "horizon": 3, "warm_start": True},
    {"replan_every": 2, "early_stop": True, "cdf_action": 0.8},
    {"percentile": 60.0, "top_k_reward": None, "cdf_observation": 0.3, "top_k_observation": None},
    {"search": "likelihood"},
]


@pytest.mark.parametrize("facts", CASES, ids=str)
def test_a_slot_acts_alike_in_any_company(facts: dict) -> None:
    """With resets at different times, over more steps than the context holds."""
    usual = {"horizon": 2, "context": 3, "beam_width": 3, "num_samples": 2}
    policy = model_of().policy(**{**usual, **facts})
    seeds, resets = [3, 4, 5], {1: (2,), 2: (1, 5)}
    steps = list(steps_of(seeds, 7, resets))
    carry = policy.initial(3)
    together = []
    for step in steps:
        carry, actions = policy.act(carry, step)
        together.append(actions)
    found = np.stack(together)
    assert found.shape == (7, 3, 1)
    assert found.dtype == np.float32
    assert len(np.unique(found)) > 1
    for slot in range(3):
        carry = policy.initial(1)
        for number, step in enumerate(steps):
            carry, action = policy.act(carry, one(step, slot))
            assert action[0] == found[number, slot]


def test_a_slot_that_starts_afresh_remembers_nothing() -> None:
    policy = model_of().policy(horizon=3, context=3, beam_width=3)
    carry = policy.initial(1)
    for step in steps_of([7], 4):
        carry, _ = policy.act(carry, step)
    (step,) = steps_of([9], 1)
    _, after = policy.act(carry, step)
    _, alone = policy.act(policy.initial(1), step)
    assert after == alone
    assert int(policy.act(carry, step)[0].steps) == 1


def test_the_past_is_what_was_seen_and_done() -> None:
    model = model_of()
    policy = model.policy(horizon=2, context=4, beam_width=2)
    carry, rows = policy.initial(1), []
    for step in steps_of([1], 6):
        carry, action = policy.act(carry, step)
        if rows:
            rows[-1][3] = step.reward[0]
        rows.append([*step.observation[0], action[0, 0], 0.0, 0.0])
    expected = model.discretizer.encode(torch.tensor(rows, dtype=torch.float64))
    expected[:, 4] = 0  # a value is never known
    assert torch.equal(carry.past[0], expected[2:5])
    assert torch.equal(carry.observation[0], expected[5, :2])
    assert torch.equal(carry.action[0], expected[5, 2:3])


def test_delayed_rewards_are_not_seen_before_the_end() -> None:
    """The data's were moved to the episode's last step, so a policy sees none before it."""
    for delayed in (True, False):
        policy = model_of(delayed_reward=delayed).policy(horizon=2, context=3, beam_width=2)
        carries = [policy.initial(1) for _ in range(2)]
        for step in steps_of([1], 3):
            other = replace(step, reward=step.reward + 2.0)
            carries = [policy.act(c, s)[0] for c, s in zip(carries, (step, other), strict=True)]
        past = [carry.past[0, :, 3].tolist() for carry in carries]
        assert (past[0] == past[1]) == delayed


# ---- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts", [{}, {"percentile": 40.0}, {"replan_every": 1, "cdf_action": None}]
)
def test_a_plans_score_written_out(facts: dict) -> None:
    """From one uncached forward pass over each plan; sums of rewards and what is to come after."""
    model = model_of()
    policy = model.policy(horizon=3, context=3, beam_width=6, num_samples=3, **facts)
    carry = policy.initial(2)
    *before, last = steps_of([1, 2], 3)
    for step in before:
        carry, _ = policy.act(carry, step)
    carry, plans = policy.plan(carry, last)
    assert plans.depth == 3
    assert plans.tokens.shape == (2, 6, 3 * SLOTS - 2)
    assert (plans.scores.diff(dim=1) <= 0).all()
    for slot in range(2):
        prefix = torch.cat([carry.past[slot].flatten(), carry.observation[slot]])
        first = len(prefix) + 1  # the place of the first reward
        for beam in range(6):
            whole = torch.cat([prefix, plans.tokens[slot, beam]])[None]
            with torch.no_grad():
                shares = torch.softmax(model.logits(model.hidden(whole[:, :-1])), dim=-1)[0]
            rewards, values, alive = [], [], True
            for depth in range(3):
                place = first + depth * SLOTS
                if depth and int(shares[place - 4].argmax()) == STOP:
                    alive = False
                row, after = shares[place - 1, :BINS], shares[place, :BINS]
                if policy.config.percentile is None:
                    reward = float(row @ model.discretizer.values[3])
                    value = float(after @ model.discretizer.values[4])
                else:
                    share = policy.config.percentile / 100
                    reward, value = (
                        float(model.discretizer.values[d, _quantile(p, share)])
                        for d, p in ((3, row), (4, after))
                    )
                rewards.append(0.99**depth * reward if alive else 0.0)
                values.append(0.99 ** (depth + 1) * value if alive else 0.0)
            expected = sum(rewards) + values[-1]
            assert plans.scores[slot, beam].item() == pytest.approx(expected, abs=1e-9)
            assert bool(plans.alive[slot, beam]) == alive


def _quantile(shares: torch.Tensor, share: float) -> int:
    total, mass = 0.0, float(shares.sum())
    for place, part in enumerate(shares.tolist()):
        total += part
        if total >= share * mass - 1e-12:
            return place
    raise AssertionError


@pytest.mark.parametrize("search", ["reward", "likelihood"])
def test_stop_tokens_never_become_actions(search: str) -> None:
    huge = {kind: {STOP: 40.0, 1: 1.0} for kind in PREDICTS}
    policy = certain(huge).policy(horizon=3, context=3, beam_width=4, search=search)
    carry = policy.initial(1)
    (step,) = steps_of([0], 1)
    _, plans = policy.plan(carry, step)
    assert plans.tokens.max() < STOP
    _, action = policy.act(carry, step)
    assert np.isin(action, policy.model.discretizer.values[2].float()).all()


def test_stop_tokens_are_tokens_as_published() -> None:
    """They decode to the top bin, whatever comes after."""
    policy = certain({"action": {STOP: 40.0}}, fidelity="published").policy(horizon=2, context=3)
    (step,) = steps_of([0], 1)
    _, plans = policy.plan(policy.initial(1), step)
    assert (plans.tokens[:, :, 0] == STOP).all()
    _, action = policy.act(policy.initial(1), step)
    assert action.item() == pytest.approx(float(policy.model.discretizer.values[2, -1]))


def test_after_a_predicted_end_nothing_is_added() -> None:
    told = {"reward": {4: 50.0}, "value": {5: 50.0}}
    model, ending = certain(told), certain({**told, "observation": {STOP: 50.0}})
    reward, value = model.discretizer.values[3, 4].item(), model.discretizer.values[4, 5].item()
    (step,) = steps_of([0], 1)
    for horizon in (1, 2, 4):
        facts = {"horizon": horizon, "context": 2, "beam_width": 3}
        _, plans = model.policy(**facts).plan(model.policy(**facts).initial(1), step)
        expected = sum(0.99**i * reward for i in range(horizon)) + 0.99**horizon * value
        assert plans.scores[0].tolist() == pytest.approx([expected] * 3)
        assert plans.alive.all()
        policy = ending.policy(**facts)
        _, plans = policy.plan(policy.initial(1), step)
        over = horizon > 1
        assert plans.scores[0].tolist() == pytest.approx([reward if over else expected] * 3)
        assert bool(plans.alive.any()) == (not over)


def test_a_likelihood_search_imitates() -> None:
    """The likeliest token of every slot; its score is their log-probability."""
    told = {
        "observation": {2: 3.0},
        "action": {4: 2.0, 1: 1.0},
        "reward": {0: 2.0},
        "value": {5: 1.0},
    }
    model = certain(told)
    policy = model.policy(search="likelihood", horizon=2, context=2, beam_width=4)
    (step,) = steps_of([0], 1)
    _, plans = policy.plan(policy.initial(1), step)
    # Slot 1, an observation's second entry, is predicted by slot 0: all are alike, the first is taken.
    assert plans.best[0].tolist() == [4, 0, 5, 2, 0, 4, 0, 5]
    shares = {
        kind: torch.log_softmax(
            torch.tensor([logits.get(token, 0.0) for token in range(BINS + 1)]).double(), -1
        ).max()
        for kind, logits in {**told, "second": {}}.items()
    }
    expected = 2 * (shares["action"] + shares["reward"] + shares["value"])
    expected = expected + shares["observation"] + shares["second"]
    assert plans.scores[0, 0].item() == pytest.approx(expected.item())


def test_one_plan_for_several_steps() -> None:
    model = model_of()
    policy, counter = counted(model.policy(replan_every=3, horizon=4, context=2, beam_width=4))
    carry, planned = policy.initial(1), None
    for number, step in enumerate(steps_of([5], 7)):
        carry, action = policy.act(carry, step)
        if number % 3 == 0:
            planned = carry.plan[0].clone()
        tokens = planned[(number % 3) * SLOTS][None]
        assert action.item() == model.discretizer.decode(tokens, first=2).float().item()
    assert counter.plans == 3


def test_an_early_stop_stops_and_its_plan_is_acted() -> None:
    """One action is all but certain and depends on the step of the plan; a plan of one transition
    says nothing of the second action."""
    model = certain({"action": {4: 60.0}})
    expected = model.discretizer.values[2, 4].float().item()
    for every in (1, 2, 3):
        policy, counter = counted(
            model.policy(horizon=4, context=2, beam_width=4, early_stop=True, replan_every=every)
        )
        carry = policy.initial(1)
        for step in steps_of([5], 6):
            carry, action = policy.act(carry, step)
            assert action.item() == expected
        assert counter.plans == 6 // every
    (step,) = steps_of([5], 1)
    assert policy.plan(policy.initial(1), step)[1].depth == 3
    policy = model.policy(horizon=4, context=2, beam_width=4, early_stop=True)
    assert policy.plan(policy.initial(1), step)[1].depth == 1


def test_a_short_budget_gives_short_plans_and_says_so(caplog) -> None:
    """What was not planned is not acted: the next step plans anew."""
    facts = {"horizon": 4, "context": 2, "beam_width": 4}
    policy, counter = counted(
        model_of().policy(**facts, replan_every=3, warm_start=True, time_budget_ms=1e-3)
    )
    every = model_of().policy(**{**facts, "horizon": 1})
    carry = other = policy.initial(1)
    other = every.initial(1)
    with caplog.at_level(logging.WARNING):
        for step in steps_of([5], 4):
            carry, action = policy.act(carry, step)
            other, expected = every.act(other, step)
            assert action == expected
    assert counter.plans == 4
    assert "time_budget_ms" in caplog.text
    caplog.clear()
    policy = model_of().policy(**facts, time_budget_ms=1e6)
    with caplog.at_level(logging.WARNING):
        _, plans = policy.plan(policy.initial(1), step)
    assert plans.depth == 4
    assert not caplog.text


@pytest.mark.parametrize("facts", [{"context": 3}, {"context": 1}])
def test_a_warm_start_tries_what_was_planned_next(facts: dict) -> None:
    """With one beam and one sample, the suggestion is all there is."""
    policy = model_of().policy(
        horizon=3, beam_width=1, num_samples=1, warm_start=True, cdf_action=None, **facts
    )
    carry, told = policy.initial(2), None
    for number, step in enumerate(steps_of([5, 6], 6, {1: (1, 2, 3, 4)})):
        carry, _ = policy.act(carry, step)
        tokens = carry.action[:, 0]
        if told is not None:
            assert tokens[0] == told[0]
            assert number < 5 or tokens[1] == told[1]
        told = carry.plan[:, SLOTS]


# ---- what is refused ----------------------------------------------------------------------------


def test_a_plan_that_does_not_fit_names_the_largest_horizon() -> None:
    model = model_of()
    with pytest.raises(UsageError, match=r"largest horizon is 3\b"):
        model.policy(context=4, horizon=4)
    assert model.policy(context=4, horizon=3).horizon == 3
    assert model.policy(context=4).horizon == 3
    assert model.policy(context=4, horizon=40, window="published").horizon == 40
    with pytest.raises(UsageError, match="context: 7 transitions; the model's block holds 6"):
        model.policy(context=7)
    with pytest.raises(UsageError, match="2 transitions or more"):
        model.policy(context=1, window="published")
    with pytest.raises(UsageError, match="replan_every"):
        model.policy(context=4, replan_every=4)
    with pytest.raises(UsageError, match="replan_every"):
        PolicyConfig(horizon=2, replan_every=3)


def test_the_usual_context_and_horizon_fit_every_model() -> None:
    for transitions in (2, 3, 5, 10):
        policy = model_of(transitions=transitions).policy(beam_width=2)
        assert 1 <= policy.horizon <= 5
        assert policy.window.past + policy.horizon <= transitions
        carry = policy.initial(1)
        for step in steps_of([0], 2):
            carry, _ = policy.act(carry, step)


def test_goals() -> None:
    plain, model = model_of(), model_of(goal="last")
    with pytest.raises(UsageError, match="not trained with goals"):
        plain.policy(goal=(0.0, 0.0))
    with pytest.raises(UsageError, match="not trained with goals"):
        plain.policy().initial(1, Condition(goal=np.zeros((1, 2))))
    (silent,) = steps_of([0], 1)
    with pytest.raises(UsageError, match="give 2 numbers"):
        model.policy(horizon=1).act(model.policy(horizon=1).initial(1), silent)
    wrong = [np.zeros((3, 1)), np.full((3, 2), np.nan), np.zeros((2, 2)), np.zeros(7), np.zeros(0)]
    for goal in wrong:
        with pytest.raises(UsageError, match="expected 2 finite numbers"):
            model.policy().initial(3, Condition(goal=goal))
    with pytest.raises(UsageError, match="expected 2 finite numbers"):
        model.policy(goal=(1.0,)).initial(3)
    facts = {"search": "likelihood", "beam_width": 8, "context": 2}
    (step,) = steps_of([0, 0], 1)
    goals = np.array([[-0.9, -0.9], [0.9, 0.9]])
    policy = model.policy(**facts)
    _, both = policy.plan(
        policy.initial(2, Condition(goal=goals)), replace(step, seed=np.zeros(2, int))
    )
    for slot in range(2):
        own = model.policy(**facts, goal=tuple(goals[slot].tolist()))
        _, plans = own.plan(own.initial(1), one(step, slot))
        assert torch.equal(plans.tokens[0], both.tokens[slot])
    assert not torch.equal(both.scores[0], both.scores[1])


def test_an_environment_tells_the_goals_of_its_episodes() -> None:
    """A slot's goal changes where its episode starts afresh, and only there; a goal that was asked
    for stays."""
    policy = model_of(goal="last").policy(search="likelihood", beam_width=4, context=2, horizon=1)
    steps = list(steps_of([0, 1], 3))
    first, second = np.array([[-0.9, 0.1], [0.2, 0.9]]), np.array([[0.5, 0.5], [-0.5, -0.5]])
    afresh = replace(steps[2], is_first=np.array([True, False]), goal=second)
    told = [replace(steps[0], goal=first), replace(steps[1], goal=second), afresh]
    expected = [first, first, np.stack([second[0], first[1]])]
    asked = Condition(goal=np.ones((2, 2)))
    carry, fixed = policy.initial(2), policy.initial(2, asked)
    for step, goals in zip(told, expected, strict=True):
        carry, actions = policy.act(carry, step)
        fixed, _ = policy.act(fixed, step)
        np.testing.assert_allclose(carry.goal, goals, rtol=1e-6)
        np.testing.assert_array_equal(fixed.goal, asked.goal)
        if step is told[0]:
            _, same = policy.act(policy.initial(2, Condition(goal=first)), steps[0])
            np.testing.assert_array_equal(actions, same)
    wrong = replace(steps[0], goal=np.zeros((2, 3)))
    with pytest.raises(UsageError, match="expected 2 finite numbers"):
        policy.act(policy.initial(2), wrong)


class Guide:
    """Likes actions near `wanted`; what it gives is made by `shaped`."""

    def __init__(self, wanted: float, shaped=lambda value: value) -> None:
        self.wanted, self.shaped, self.asked = wanted, shaped, []

    def value(self, observation, action):
        self.asked.append((observation, action))
        return self.shaped(-100.0 * (action[:, 0] - self.wanted).abs())


@pytest.mark.parametrize("wanted", [-0.5, 0.5])
def test_a_guide_replaces_what_comes_after(wanted: float) -> None:
    model, guide = model_of(), Guide(wanted)
    facts = {"horizon": 2, "context": 2, "beam_width": 4, "num_samples": 8, "cdf_action": None}
    policy = model.policy(guide=guide, **facts)
    (step,) = steps_of([0, 1], 1)
    _, actions = policy.act(policy.initial(2), step)
    assert np.abs(actions - wanted).max() < 0.5 / BINS + 1e-6
    observation, action = guide.asked[0]
    assert observation.shape == (64, 2)
    assert action.shape == (64, 1)
    seen = model.discretizer.decode(model.discretizer.encode(torch.from_numpy(step.observation)))
    assert torch.equal(observation[:32], seen[:1].expand(32, -1))
    # The best plan's score: its first reward and the guide's word on its second action.
    _, plans = policy.plan(policy.initial(2), step)
    tokens = torch.cat([policy.plan(policy.initial(2), step)[0].observation[0], plans.best[0]])
    with torch.no_grad():
        shares = torch.softmax(model.logits(model.hidden(tokens[None, :-1])), -1)[0, 2, :BINS]
    reward = float(shares @ model.discretizer.values[3])
    last = model.discretizer.decode(tokens[SLOTS + 2 : SLOTS + 3], first=2).item()
    if plans.alive[0, 0]:
        expected = reward - 0.99 * 100.0 * abs(last - wanted)
        assert plans.scores[0, 0].item() == pytest.approx(expected)


def test_guides_that_fail_are_named() -> None:
    model, (step,) = model_of(), steps_of([0], 1)
    shapes = [lambda v: v[:-1], lambda v: v.sum(), lambda v: torch.stack([v, v], 1)]
    for shaped in shapes:
        policy = model.policy(guide=Guide(0.0, shaped))
        with pytest.raises(CheckpointError, match=r"guide: gave .* values for 64"):
            policy.act(policy.initial(1), step)
    for broken in (np.nan, np.inf):
        policy = model.policy(guide=Guide(0.0, lambda v, b=broken: v + b))
        with pytest.raises(CheckpointError, match="guide: a value is not finite"):
            policy.act(policy.initial(1), step)
    for shaped in (lambda v: v[:, None], lambda v: v.numpy(), lambda v: v.tolist()):
        policy = model.policy(guide=Guide(0.0, shaped))
        policy.act(policy.initial(1), step)
    with pytest.raises(UsageError, match="guide"):
        model.policy(guide=Guide(0.0), search="likelihood")


@pytest.mark.parametrize("search", ["reward", "likelihood"])
@pytest.mark.parametrize("broken", ["position", "head.weight"])
def test_predictions_that_are_not_numbers_are_refused(search: str, broken: str) -> None:
    model = model_of()
    with torch.no_grad():
        model.get_parameter(broken).fill_(torch.nan)
    policy, (step,) = model.policy(search=search), steps_of([0], 1)
    with pytest.raises(CheckpointError, match="not numbers"):
        policy.act(policy.initial(1), step)


def test_reduced_precision_rounds_products_alone() -> None:
    """Rewards that differ in their third digit are told apart."""
    model = certain({"reward": {3: 60.0}, "value": {0: 60.0}})
    with torch.no_grad():
        model.discretizer.values[3, 3] = 301.3
        model.discretizer.values[4] = 0.0
    model = model.float()
    policy = model.policy(horizon=1, context=2, beam_width=2, precision="bf16")
    (step,) = steps_of([0], 1)
    _, plans = policy.plan(policy.initial(1), step)
    assert plans.scores[0].tolist() == pytest.approx([301.3] * 2, abs=1e-2)
    made: list[torch.dtype | None] = []

    def noted(network, window, dtype):
        made.append(dtype)
        return CachedModel(network, window, dtype)

    replace(policy, token_model=noted).plan(policy.initial(1), step)
    assert made == [torch.bfloat16]
