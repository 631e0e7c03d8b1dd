"""Both planners of the benchmark make one plan, and its measurements are what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from trajlm.algorithms.decision_transformer.model import Model as DecisionTransformer
from trajlm.algorithms.trajectory_transformer.config import Config, PolicyConfig
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.algorithms.trajectory_transformer.policy import TrajectoryTransformerPolicy
from trajlm.bench import planning, suite
from trajlm.bench.data import noise_store
from trajlm.bench.planning import (
    equal_actions,
    expected_seconds,
    our_plans,
    plan_speed,
    random_pasts,
    random_policy,
    recorded_pasts,
    reduced_precision,
    score_of,
    their_plan,
)
from trajlm.bench.published_tt import batch_loss, published_twin
from trajlm.bench.training import CONFIG, SPEC
from trajlm.bench.training_tt import BODIES, token_batch, training_tt_speed
from trajlm.core.errors import UsageError
from trajlm.core.spec import Box, DataSpec
from trajlm.planning import kernels
from trajlm.planning.recompute import RecomputeModel
from trajlm.training.checkpoint import save_artefact

TINY = Config(transitions=4, num_bins=10, width=16, num_layers=2, num_heads=2)
SEARCH = PolicyConfig(horizon=4, beam_width=5, context=3, window="published")


def tiny_policy(seed: int = 0) -> TrajectoryTransformerPolicy:
    """In float64, with a window that slides during a plan."""
    spec = DataSpec(observation=Box(shape=(3,)), action=Box(shape=(2,)), horizon=100)
    policy = random_policy(spec, SEARCH, config=TINY, seed=seed)
    policy.model.double()
    return policy


@pytest.mark.parametrize("seed", range(5))
def test_both_planners_make_one_plan(seed: int) -> None:
    policy = tiny_policy(seed)
    past = random_pasts(policy, 1, seed=seed)
    ours, (tokens, score) = our_plans(policy, past, seeds=[7]), their_plan(policy, past, seed=7)
    assert torch.equal(ours.best[0], tokens)
    torch.testing.assert_close(ours.scores[0, 0], score, rtol=0, atol=1e-9)


def test_the_speed_of_a_plan_has_both_sides_and_its_operations() -> None:
    policy = tiny_policy()
    speed = plan_speed(policy, random_pasts(policy, 1), plans=1)
    assert speed.same_action and speed.ours > 0 and speed.theirs > 0
    # Every token of the past but the values runs through 12 W^2 weights a layer, at the least.
    assert speed.operations > 2 * 12 * 2 * 16**2 * 15


def test_operations_are_those_of_matrix_products() -> None:
    with planning.FlopCounterMode(display=False) as counter, torch.inference_mode():
        layer = torch.nn.Linear(8, 16)
        torch.matmul(layer(torch.randn(4, 8)), torch.randn(3, 16, 5))
    assert counter.get_total_flops() == 2 * 4 * 8 * 16 + 3 * 2 * 4 * 16 * 5


def test_a_plan_is_scored_as_it_was_when_it_was_found() -> None:
    policy = tiny_policy()
    pasts = random_pasts(policy, 3)
    found = our_plans(policy, pasts, seeds=range(3))
    torch.testing.assert_close(
        score_of(policy, pasts, found.best), found.scores[:, 0], rtol=0, atol=1e-9
    )


def test_a_plan_of_another_model_is_scored_along_its_own_states() -> None:
    """Its observations are not the likeliest ones here; the score is still of that very plan."""
    policy = tiny_policy()
    layout, scorer = policy.model.layout, policy.scorer
    pasts = random_pasts(policy, 1)
    size = policy.horizon * layout.size - layout.observation_size
    plan = torch.randint(0, TINY.num_bins, (1, size), generator=torch.Generator().manual_seed(1))
    expected = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        walker = RecomputeModel(policy.model, policy.window)
        logits, total = walker.prefill(pasts), torch.zeros((), dtype=torch.float64)
        for place in range(size):
            slot = (pasts.shape[1] + place) % layout.size
            depth = (pasts.shape[1] + place) // layout.size - pasts.shape[1] // layout.size
            if slot in (layout.reward, layout.value):
                decoded = scorer.decoded(torch.log_softmax(logits, dim=-1), slot)[0]
                if slot == layout.reward:
                    total = total + scorer.discount**depth * decoded
                else:
                    expected = total + scorer.discount ** (depth + 1) * decoded
            logits = walker.step(plan[:, place])
    torch.testing.assert_close(score_of(policy, pasts, plan)[0], expected, rtol=0, atol=1e-9)


def test_small_searches_agree_and_bf16_is_measured_against_float32() -> None:
    policy = tiny_policy()
    assert equal_actions(policy, random_pasts(policy, 2)) == 1.0
    policy.model.float()
    reduced = reduced_precision(policy, random_pasts(policy, 5), batch=3)
    assert reduced.states == 5 and 0.0 <= reduced.same_actions <= 1.0


def test_pasts_come_from_the_middle_of_recorded_episodes() -> None:
    policy = random_policy(SPEC, SEARCH, config=TINY)
    edges = torch.linspace(-3, 3, TINY.num_bins + 1).expand_as(policy.model.discretizer.edges)
    policy.model.discretizer.edges.copy_(edges)
    pasts = recorded_pasts(policy, 3, noise_store(2_000))
    assert pasts.shape == random_pasts(policy, 3).shape
    assert torch.equal(pasts[0], pasts[2]) and not torch.equal(pasts[0], pasts[1])
    assert 0 <= int(pasts.min()) < int(pasts.max()) < TINY.num_bins


def test_a_trained_model_plans_and_another_algorithm_does_not(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.model.float()
    save_artefact(policy.model, tmp_path / "ours")
    found = planning.trained_policy(tmp_path / "ours", SEARCH)
    past = random_pasts(policy, 1)
    assert torch.equal(
        our_plans(found, past, seeds=[3]).tokens, our_plans(policy, past, seeds=[3]).tokens
    )
    save_artefact(DecisionTransformer.build(CONFIG, SPEC, {}), tmp_path / "other")
    with pytest.raises(UsageError, match="Trajectory Transformer"):
        planning.trained_policy(tmp_path / "other", SEARCH)


def test_what_the_authors_code_would_take_scales_with_the_machine() -> None:
    assert expected_seconds("Hopper", 94.0) == 2 * 52.0


@pytest.mark.skipif(not planning.STATUS.exists(), reason="the system does not tell")
def test_memory_is_that_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(planning.SETTINGS, "Hopper", replace(SEARCH, horizon=1))
    assert set(planning.SETTINGS) == set(BODIES) == set(planning.PUBLISHED_SECONDS)
    assert planning.memory_of_a_plan("Hopper") > 0


def test_where_the_system_does_not_tell_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(planning, "STATUS", tmp_path / "none")
    assert planning.peak_megabytes("Hopper") is None


def test_the_rows_of_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = partial(random_policy, config=TINY)
    monkeypatch.setattr(planning, "random_policy", tiny)
    monkeypatch.setattr(planning, "trained_policy", lambda run, setting: tiny_policy())
    monkeypatch.setattr(planning, "product_rate", lambda: 94.0)
    monkeypatch.setattr(planning, "peak_megabytes", lambda body, kind="torch": 150.0)
    monkeypatch.setattr(suite, "measured_precisions", lambda: ["float32"])
    small = replace(SEARCH, horizon=2, beam_width=2)
    for body in planning.SETTINGS:
        monkeypatch.setitem(planning.SETTINGS, body, small)
    rows = suite.plan(suite.Given(run=Path("run")))
    named = [row.what for row in rows if "NVIDIA" not in row.what]
    assert all(row.startswith("plan, ") for row in named)
    compiled = [row for row in rows if row.what.endswith("compiled")]
    plain = [row for row in rows if row not in compiled]
    assert len(named) - len(compiled) == 10
    assert plain[2].baseline == "expected 20,400 ms" and plain[5].baseline == "expected 104,000 ms"
    assert plain[7].ratio == 2.0 and "weights of run" in plain[8].what
    assert plain[0].ratio is not None and "first action" in plain[0].baseline
    if kernels.compiler() is not None:
        assert len(compiled) == 7
        assert sum("the same plan" in row.ours for row in compiled) == 5
        assert all(row.ratio is not None and row.ratio > 0 for row in compiled)
    speed = suite._bf16_speed_row("Hopper", tiny(SPEC, small))
    assert speed.what == "plan, Hopper, bf16" and speed.ratio is not None and speed.ratio > 0
    half = suite._bf16_row(tiny(SPEC, small), states=3)
    assert "bf16, 3 states" in half.what and half.ours.endswith("%")


def test_both_sides_of_training_have_one_loss() -> None:
    spec = BODIES["Hopper"]
    model = Model.build(replace(TINY, dropout=0.0), spec, {})
    batch, twin = token_batch(model, 3), published_twin(model)
    torch.testing.assert_close(model(batch).value, batch_loss(twin, batch))
    speed, tokens = training_tt_speed(spec, config=TINY, batch_size=2, rounds=1)
    assert tokens == 2 * (4 * 16 - 1) and speed.ratio > 0
