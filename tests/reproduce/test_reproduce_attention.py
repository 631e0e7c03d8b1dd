"""Patterns of attention: their scores on maps that show one by construction, and on real models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pendulum_data import write_pendulum
from trajlm.core.errors import DataError, UsageError
from trajlm.data.load import load_dataset
from trajlm.nn.attention_maps import recorded_attention
from trajlm.reproduce import attention_maps as maps
from trajlm.reproduce import attention_patterns as patterns
from trajlm.reproduce.attention_patterns import (
    CONDITIONED,
    MARKOVIAN,
    PLANNER,
    SMOOTHING,
    STRIATED,
    Tokens,
)
from trajlm.reproduce.reproduce import reproduce
from trajlm.runs.assembly import Assembly, assemble
from trajlm.runs.attention import mean_attention, whole_windows
from trajlm.runs.config import resolve


@pytest.fixture(scope="module", params=[f"{PLANNER}/debug", f"{CONDITIONED}/debug"])
def assembly(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A fresh model with its batches, on data of 3 observations and 1 action."""
    data = write_pendulum(tmp_path_factory.mktemp("pendulum") / "pendulum.npz")
    return assemble(resolve(request.param), load_dataset(str(data), env_id="Pendulum-v1"))


@pytest.fixture
def tokens(assembly: Assembly) -> Tokens:
    return patterns.tokens_of(assembly.model, algorithm=algorithm_of(assembly))


def algorithm_of(assembly: Assembly) -> str:
    return type(assembly.model).__module__.split(".")[-2]


def rows_towards(tokens: Tokens, pairs: np.ndarray, *, back: tuple[int, ...]) -> np.ndarray:
    """(Q, L): the rows `pairs` look at their token that many steps before alone, the others evenly."""
    rows = patterns.even_rows(tokens)
    for position, slot in pairs:
        time = (position + 1) // tokens.size
        seen = [(time - b) * tokens.size + slot for b in back if time - b >= 0]
        if seen:
            place = np.searchsorted(tokens.rows, position)
            rows[place] = 0.0
            rows[place, seen] = 1.0 / len(seen)
    return rows


# ---- scores -------------------------------------------------------------------------------------


def test_an_even_head_looks_at_all_it_may_see_alike_and_shows_nothing(tokens: Tokens) -> None:
    rows = patterns.even_rows(tokens)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    for row, position in zip(rows, tokens.rows, strict=True):
        seen = np.flatnonzero(row)
        assert seen.max() <= position
        assert not set(seen % tokens.size) & set(tokens.unseen)
    even = patterns.even_scores(tokens)
    assert even == patterns.scores(rows, tokens)
    assert not any(patterns.occurs(even, even).values())


def test_stripes_are_found_where_they_are(tokens: Tokens) -> None:
    even = patterns.even_scores(tokens)
    striped = patterns.scores(rows_towards(tokens, tokens.states, back=(2,)), tokens)
    assert striped[STRIATED] == pytest.approx(1.0)
    assert patterns.occurs(striped, even)[STRIATED]
    smooth = patterns.scores(rows_towards(tokens, tokens.actions, back=(1,)), tokens)
    assert smooth[SMOOTHING] == pytest.approx(1.0)
    assert smooth["actions over states"] == pytest.approx(1.0)
    assert patterns.occurs(smooth, even)[SMOOTHING]


def test_the_step_before_alone_is_markovian_and_no_stripe_of_states(tokens: Tokens) -> None:
    even = patterns.even_scores(tokens)
    rows = rows_towards(tokens, tokens.states, back=(1,))
    found = patterns.scores(rows, tokens)
    assert found[STRIATED] == 0.0
    assert found[MARKOVIAN] > even[MARKOVIAN]
    now_and_before = np.zeros_like(rows)
    for place, position in enumerate(tokens.rows):
        first = max(0, tokens.time(position) - 1) * tokens.size
        now_and_before[place, first : position + 1] = 1.0 / (position + 1 - first)
    found = patterns.scores(now_and_before, tokens)
    assert found[MARKOVIAN] == pytest.approx(1.0)
    assert patterns.occurs(found, even) == {MARKOVIAN: True, STRIATED: False, SMOOTHING: False}


def test_dimensions_are_told_apart(assembly: Assembly, tokens: Tokens) -> None:
    """Looking two steps back at another dimension is no stripe."""
    if algorithm_of(assembly) == CONDITIONED:
        wrong = tokens.states - np.array([0, 1])  # the return
    else:
        wrong = np.stack([tokens.states[:, 0], (tokens.states[:, 1] + 1) % 3], axis=1)
    assert patterns.scores(rows_towards(tokens, wrong, back=(2,)), tokens)[STRIATED] == 0.0


def test_a_row_is_read_for_what_is_predicted_from_it(assembly: Assembly, tokens: Tokens) -> None:
    actions = tokens.kinds.index("action")
    assert set(tokens.actions[:, 1]) == {actions}
    assert ((tokens.actions[:, 0] + 1) % tokens.size == actions).all()
    if algorithm_of(assembly) == PLANNER:
        assert set(tokens.states[:, 1]) == {0, 1, 2}
        assert ((tokens.states[:, 0] + 1) % tokens.size == tokens.states[:, 1]).all()
        assert tokens.unseen == (tokens.kinds.index("value"),)


# ---- real models --------------------------------------------------------------------------------


def test_an_untrained_model_looks_evenly(assembly: Assembly, tokens: Tokens) -> None:
    batches = whole_windows([assembly.loader.batch(0)], count=6)
    layers = mean_attention(assembly.model, batches)
    even = patterns.even_scores(tokens)
    assert len(layers) == assembly.model.config.num_layers
    for layer in layers:
        rows = patterns.predicting(layer, tokens)
        assert rows.shape == (len(layer), len(tokens.rows), tokens.rows[-1] + 1)
        np.testing.assert_allclose(rows.sum(axis=2), 1.0, rtol=1e-5)
        for head in rows:
            found = patterns.scores(head, tokens)
            assert found == pytest.approx(even, rel=0.1)


def test_attention_is_recorded_and_then_no_more(assembly: Assembly) -> None:
    model, batch = assembly.model.eval(), assembly.loader.batch(0)
    before = model(batch).value
    with recorded_attention(model) as found:
        within = model(batch).value
        assert len(found) == model.config.num_layers
    model(batch)
    assert len(found) == model.config.num_layers
    assert torch.equal(before, within)


def test_a_window_that_an_end_cuts_is_left_out(assembly: Assembly) -> None:
    batch = assembly.loader.batch(0)
    batch.mask[: len(batch) - 2, -1] = False
    kept = whole_windows([batch, assembly.loader.batch(1)], count=5)
    assert [len(each) for each in kept] == [2, 3]
    batch.mask[:] = False
    with pytest.raises(DataError, match="as long as a window"):
        whole_windows([batch], count=5)


# ---- the experiment -----------------------------------------------------------------------------


def test_a_kept_map_reads_as_it_was(tokens: Tokens) -> None:
    rows = patterns.even_rows(tokens)
    kept = maps.whole(maps.cut(rows, tokens, steps=2))
    assert kept.shape[0] == (tokens.time(tokens.rows) < 2).sum()
    known = ~np.isnan(kept)
    np.testing.assert_allclose(kept[known], rows[: len(kept), : kept.shape[1]][known], atol=1e-4)
    assert known.sum(axis=1).tolist() == (tokens.rows[: len(kept)] + 1).tolist()


def test_a_model_whose_tokens_are_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not known here"):
        reproduce(
            "attention", scale="debug", algorithms=["behavior_cloning/small"], output=tmp_path
        )
