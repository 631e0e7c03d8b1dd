"""The cached token model equals the uncached one, and plans by it are the oracle's very plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from token_models import FAST
from trajlm.algorithms.trajectory_transformer.config import Config
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.seeding import uniform
from trajlm.core.spec import Box, DataSpec
from trajlm.nn.sampling import Filter
from trajlm.planning.beam import Draws, Plans, Slot, likelihood_search, scored_search, stable_top
from trajlm.planning.cached import CachedModel
from trajlm.planning.guidance import RewardScorer
from trajlm.planning.recompute import RecomputeModel
from trajlm.planning.window import Window


def random_model(
    *, observation: int, action: int, transitions: int, seed: int, goal: str = "none", bins: int = 6
) -> Model:
    """Random weights of every kind, in float64, moved away from their initial values."""
    spec = DataSpec(observation=Box(shape=(observation,)), action=Box(shape=(action,)), horizon=100)
    config = Config(
        transitions=transitions, num_bins=bins, width=16, num_layers=2, num_heads=2, goal=goal
    )
    generator = torch.Generator().manual_seed(seed)
    model = Model.build(config, spec, {}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.5 * noise)
        values = torch.randn(model.layout.size, bins, generator=generator, dtype=torch.float64)
        model.discretizer.values.copy_(values.sort(dim=1).values)
    return model


@st.composite
def cases(draw):
    observation, action = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    context = draw(st.integers(2, 4))
    kind = draw(st.sampled_from(["published", "full_block"]))
    goal = draw(st.sampled_from(["none", "last"]))
    past = draw(st.integers(0, context - 1))
    horizon = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**31))
    transitions = context + (horizon if kind == "full_block" else 0)
    model = random_model(
        observation=observation, action=action, transitions=transitions, seed=seed, goal=goal
    )
    size = model.layout.size
    window = Window(kind=kind, slots=size, context=context, block=model.block_size)
    environments = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(seed + 1)
    length = past * size + observation
    prefix = torch.randint(0, model.num_bins, (environments, length), generator=generator)
    aim = None
    if goal != "none":
        aim = torch.randint(0, model.num_bins, (environments, observation), generator=generator)
    return model, window, prefix, aim, horizon, seed


def draws_of(seeds: list[int]) -> Draws:
    def draws(depth: int, slot: int, rows: int) -> Tensor:
        keys = np.array(seeds)
        return torch.from_numpy(
            uniform(keys, np.zeros_like(keys), lanes=rows, stream=100 * depth + slot)
        )

    return draws


def schedule(model: Model, *, allowed: int) -> tuple[list[Slot], list[Slot]]:
    layout = model.layout
    acted, greedy = Filter(cdf=0.3), Filter(top_k=1)
    actions = [
        Slot(index=i, keep=acted, allowed=allowed)
        for i in range(layout.actions.start, layout.actions.stop)
    ]
    told = [
        Slot(index=i, keep=greedy, allowed=allowed, watched=True)
        for i in (layout.reward, layout.value)
    ]
    rest = [
        Slot(index=i, keep=greedy, allowed=allowed, ends=i == 0)
        for i in range(layout.observation_size)
    ]
    return [*actions, *told], rest


def plan(kind: type, case, *, rows: slice = slice(None), width: int = 5, samples: int = 2) -> Plans:
    model, window, prefix, goal, horizon, _ = case
    first, rest = schedule(model, allowed=model.num_bins)
    seeds = list(range(len(prefix)))[rows]
    with torch.inference_mode():
        return scored_search(
            kind(model, window),
            prefix[rows],
            schedule=first,
            rest=rest,
            horizon=horizon,
            beam_width=width,
            num_samples=samples,
            scorer=RewardScorer(layout=model.layout, discretizer=model.discretizer, discount=0.97),
            draws=draws_of(seeds),
            goal=None if goal is None else goal[rows],
        )


@pytest.mark.parametrize("kind", FAST)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_logits_are_the_uncached_ones_past_slides_and_branches(kind: type, case) -> None:
    """Random walks with copies and selections; every logit to 1e-9."""
    model, window, prefix, goal, horizon, seed = case
    generator = torch.Generator().manual_seed(seed + 2)
    slow, fast = RecomputeModel(model, window), kind(model, window)
    size, environments = model.layout.size, len(prefix)
    with torch.inference_mode():
        expected, found = slow.prefill(prefix, goal=goal), fast.prefill(prefix, goal=goal)
        per_env = 1
        for place in range(prefix.shape[1], prefix.shape[1] + horizon * size - size):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
            copies = int(torch.randint(1, 4, (), generator=generator)) if place % 3 == 0 else 1
            if per_env * copies <= 12:
                slow.expand(copies), fast.expand(copies)
                per_env *= copies
            if place % 2 == 0 and per_env > 2:
                kept = torch.randint(0, per_env, (environments, 3), generator=generator)
                rows = (kept + per_env * torch.arange(environments)[:, None]).flatten()
                slow.select(rows), fast.select(rows)
                per_env = 3
            # Few different tokens, so that some histories are equal.
            tokens = torch.randint(0, 2, (environments * per_env,), generator=generator)
            expected, found = slow.step(tokens), fast.step(tokens)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", FAST)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_the_fast_planner_gives_the_oracles_plan(kind: type, case) -> None:
    oracle, fast = plan(RecomputeModel, case), plan(kind, case)
    assert torch.equal(oracle.tokens, fast.tokens)
    torch.testing.assert_close(oracle.scores, fast.scores, rtol=0, atol=1e-9)
    assert torch.equal(oracle.alive, fast.alive)


@pytest.mark.parametrize("kind", FAST)
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_planning_many_environments_is_planning_each(kind: type, case) -> None:
    together = plan(kind, case)
    for number in range(len(case[2])):
        # A single environment draws with its own seed.
        model, window, prefix, goal, horizon, _ = case
        alone = _plan_of(kind, model, window, prefix, goal, horizon, number)
        assert torch.equal(together.tokens[number], alone.tokens[0])
        torch.testing.assert_close(together.scores[number], alone.scores[0], rtol=0, atol=1e-9)


def _plan_of(kind, model, window, prefix, goal, horizon, number) -> Plans:
    first, rest = schedule(model, allowed=model.num_bins)
    rows = slice(number, number + 1)
    with torch.inference_mode():
        return scored_search(
            kind(model, window),
            prefix[rows],
            schedule=first,
            rest=rest,
            horizon=horizon,
            beam_width=5,
            num_samples=2,
            scorer=RewardScorer(layout=model.layout, discretizer=model.discretizer, discount=0.97),
            draws=draws_of([number]),
            goal=None if goal is None else goal[rows],
        )


@pytest.mark.parametrize("kind", FAST)
@settings(max_examples=25, deadline=None)
@given(case=cases(), width=st.integers(1, 40))
def test_likelihood_search_is_the_uncached_one_and_its_scores_are_likelihoods(
    kind: type, case, width: int
) -> None:
    model, window, prefix, goal, horizon, _ = case
    size = model.layout.size
    slots = [
        Slot(index=(prefix.shape[1] + i) % size, keep=Filter(), allowed=model.num_bins)
        for i in range(horizon * size - model.layout.observation_size)
    ]
    with torch.inference_mode():
        found = [
            likelihood_search(made(model, window), prefix, slots=slots, beam_width=width, goal=goal)
            for made in (RecomputeModel, kind)
        ]
        assert torch.equal(found[0].tokens, found[1].tokens)
        torch.testing.assert_close(found[0].scores, found[1].scores, rtol=0, atol=1e-9)
        # The score of the best is the sum of the log-probabilities of its tokens.
        walker, total = RecomputeModel(model, window), torch.zeros(len(prefix), dtype=torch.float64)
        log_p = torch.log_softmax(walker.prefill(prefix, goal=goal), dim=-1)
        for place in range(found[0].tokens.shape[2]):
            token = found[0].best[:, place]
            total += log_p.gather(1, token[:, None])[:, 0]
            if place + 1 < found[0].tokens.shape[2]:
                log_p = torch.log_softmax(walker.step(token), dim=-1)
    torch.testing.assert_close(total, found[0].scores[:, 0], rtol=0, atol=1e-9)


def test_beams_wider_than_there_are_candidates_fill_up() -> None:
    model = random_model(observation=1, action=1, transitions=3, seed=0, bins=3)
    window = Window(kind="full_block", slots=4, context=2, block=model.block_size)
    slots = [Slot(index=1, keep=Filter(), allowed=3), Slot(index=2, keep=Filter(), allowed=3)]
    with torch.inference_mode():
        plans = likelihood_search(
            CachedModel(model, window),
            torch.zeros(1, 1, dtype=torch.int64),
            slots=slots,
            beam_width=50,
        )
    assert plans.tokens.shape == (1, 9, 2)
    assert len({tuple(row) for row in plans.tokens[0].tolist()}) == 9
    torch.testing.assert_close(plans.scores[0].exp().sum().item(), 1.0, atol=0.5, rtol=0)


def test_what_differs_by_rounding_alone_is_a_tie() -> None:
    """Whichever way a processor adds up, the earlier of two like plans comes first."""
    for dtype in (torch.float32, torch.float64):
        noise = torch.finfo(dtype).eps
        values = torch.tensor([[-1.5, -1.5 + noise, 0.25, -1.5 - noise, -torch.inf]], dtype=dtype)
        best, places = stable_top(values, 4)
        assert places.tolist() == [[2, 0, 1, 3]]
        assert torch.equal(best, values[:, [2, 0, 1, 3]])
        apart = torch.tensor([[-1.5, -1.499]], dtype=dtype)
        assert stable_top(apart, 1)[1].tolist() == [[1]]


def test_products_in_bf16_are_close_and_logits_are_not_rounded() -> None:
    model = random_model(observation=2, action=1, transitions=3, seed=0).float()
    window = Window(kind="full_block", slots=model.layout.size, context=2, block=model.block_size)
    prefix = torch.tensor([[1, 4]])
    exact, rounded = CachedModel(model, window), CachedModel(model, window, torch.bfloat16)
    with torch.inference_mode():
        for token in (None, 3, 0, 2, 5):
            if token is None:
                expected, found = exact.prefill(prefix), rounded.prefill(prefix)
            else:
                step = torch.tensor([token])
                expected, found = exact.step(step), rounded.step(step)
            assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
            assert not torch.equal(found, expected)
            torch.testing.assert_close(found, expected, rtol=0, atol=0.2)
