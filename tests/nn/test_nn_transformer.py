"""The transformer's promises: causality, windows, padding, outputs, dropout's expectation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajlm.core.errors import UsageError
from trajlm.nn.dropout import dropout, dropout_add, keep_factors
from trajlm.nn.interleave import interleave
from trajlm.nn.losses import masked_mean
from trajlm.nn.transformer import AttentionMask, Transformer, TransformerConfig

CONFIG = TransformerConfig(width=16, num_layers=2, num_heads=2, activation="gelu")


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tokens(length: int = 9, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(3, length, 16, generator=torch.Generator().manual_seed(seed))


def test_no_token_sees_the_future(model: Transformer) -> None:
    x = tokens()
    changed = x.clone()
    changed[:, 5] += tokens(seed=2)[:, 5]
    before, after = model(x), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=-1).min() > 1e-4


def test_right_padding_changes_no_real_token(model: Transformer) -> None:
    x = tokens()
    padded = torch.cat([x, torch.full((3, 4, 16), 7.0)], dim=1)
    assert torch.allclose(model(padded)[:, :9], model(x), atol=1e-6)


def test_left_padding_is_invisible(model: Transformer) -> None:
    x = tokens()
    padded = torch.cat([torch.full((3, 4, 16), 7.0), x], dim=1)
    visible = torch.arange(13).expand(3, 13) >= 4
    hidden = model(padded, mask=AttentionMask(visible_keys=visible))
    assert torch.allclose(hidden[:, 4:], model(x), atol=1e-5)


def test_window_limits_what_one_layer_sees() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=16, num_layers=1, num_heads=1)).eval()
    x = tokens()
    windowed = model(x, mask=AttentionMask(window=3))
    assert torch.allclose(windowed[:, 6], model(x[:, 4:7])[:, 2], atol=1e-6)
    assert not torch.allclose(windowed[:, 6], model(x)[:, 6], atol=1e-6)


@given(start=st.integers(0, 8), step=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_outputs_are_those_of_the_full_forward(model: Transformer, start: int, step: int) -> None:
    x = tokens()
    wanted = slice(start, None, step)
    assert torch.allclose(model(x, outputs=wanted), model(x)[:, wanted], atol=1e-5)


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_nothing_visible_gives_no_nan(model: Transformer, precision: torch.dtype | None) -> None:
    x = tokens()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        hidden = model(x, mask=AttentionMask(visible_keys=torch.zeros(3, 9, dtype=torch.bool)))
    assert torch.isfinite(hidden).all()


def test_left_padding_in_bf16_is_invisible(model: Transformer) -> None:
    """A row of minus infinity alone would make NaN of padding that sees nothing."""
    x = tokens()
    padded = torch.cat([torch.full((3, 4, 16), 7.0), x], dim=1)
    visible = torch.arange(13).expand(3, 13) >= 4
    with torch.autocast("cpu", torch.bfloat16):
        alone, hidden = model(x), model(padded, mask=AttentionMask(visible_keys=visible))
    assert torch.isfinite(hidden).all()
    assert torch.allclose(hidden[:, 4:], alone, atol=0.1)


def test_attention_maps_sum_to_one_and_are_causal(model: Transformer) -> None:
    maps: list[torch.Tensor] = []
    model(tokens(), attention=maps, outputs=slice(2, None, 3))
    assert [tuple(m.shape) for m in maps] == [(3, 2, 9, 9), (3, 2, 3, 9)]
    assert torch.allclose(maps[0].sum(-1), torch.ones(3, 2, 9), atol=1e-5)
    assert maps[0].triu(1).abs().max() == 0.0


def test_dropout_keeps_the_mean_and_the_rate() -> None:
    torch.manual_seed(0)
    factors = keep_factors(torch.empty(1_000_000), 0.1)
    assert factors.unique().tolist() == pytest.approx([0.0, 65536 / (65536 - 6554)])
    assert factors.mean().item() == pytest.approx(1.0, abs=2e-3)
    assert (factors == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dropout_factors_in_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    factors = keep_factors(torch.empty(30_001, dtype=dtype), 0.1)
    assert factors.dtype == dtype
    scale = torch.tensor(65536 / (65536 - 6554), dtype=dtype)
    assert factors.unique().tolist() == [0.0, scale.item()]
    torch.manual_seed(0)
    assert torch.equal(keep_factors(torch.empty(30_001), 0.1) > 0, factors > 0)


@pytest.mark.parametrize("probability", [1e-6, 1 - 1e-6])
def test_dropout_of_nearly_none_and_nearly_all(probability: float) -> None:
    factors = keep_factors(torch.empty(1000), probability)
    assert torch.isfinite(factors).all()
    assert (factors == 0).float().mean().item() == pytest.approx(probability, abs=0.01)


def test_dropout_lanes_are_independent() -> None:
    torch.manual_seed(0)
    kept = (keep_factors(torch.empty(250_000, 4), 0.3) > 0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7)])
def test_dropout_add_and_its_gradient(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    residual = torch.randn(shape, dtype=torch.float32, requires_grad=True)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    out = dropout_add(residual, x, 0.5, training=True)
    torch.manual_seed(3)
    expected = residual + dropout(x, 0.5, training=True)
    assert torch.allclose(out, expected)
    got = torch.autograd.grad(out.square().sum(), (residual, x))
    want = torch.autograd.grad(expected.square().sum(), (residual, x))
    assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))


def test_dropout_is_off_outside_training() -> None:
    x = torch.randn(4, 4)
    assert dropout(x, 0.5, training=False) is x
    assert torch.equal(dropout_add(x, x, 0.5, training=False), 2 * x)


def test_interleave_order() -> None:
    a, b, c = (torch.full((1, 2, 1), float(v)) + torch.tensor([[[0.0], [10.0]]]) for v in (1, 2, 3))
    assert interleave(a, b, c).flatten().tolist() == [1, 2, 3, 11, 12, 13]


def test_masked_mean_ignores_padding_and_survives_none() -> None:
    values = torch.tensor([[1.0, 3.0, 99.0]])
    assert masked_mean(values, torch.tensor([[True, True, False]])).item() == 2.0
    assert masked_mean(values, torch.zeros(1, 3, dtype=torch.bool)).item() == 0.0


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="width"):
        TransformerConfig(width=10, num_heads=3)
    with pytest.raises(UsageError, match="num_layers"):
        TransformerConfig(num_layers=-1)
