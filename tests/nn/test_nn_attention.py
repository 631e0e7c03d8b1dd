"""Attention against the textbook's, its gradient against autograd's and against differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trajlm.nn import attention as module
from trajlm.nn.attention import Attention
from trajlm.nn.transformer import AttentionMask

WIDTH, BATCH, HIDDEN = 12, 2, 3
OUTPUTS = st.sampled_from([slice(None), slice(-1, None), slice(0, None, 3)])


def build(
    length: int, *, dropout: float = 0.0, heads: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Attention, Tensor]:
    torch.manual_seed(length)
    attention = Attention(WIDTH, heads, dropout=dropout).to(dtype)
    return attention, torch.randn(BATCH, length, WIDTH, dtype=dtype, requires_grad=True)


def limits(x: Tensor, outputs: slice, *, rows: int = 1) -> Tensor:
    """Causal, and one token is hidden from all, in each of `rows` another."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    seen = torch.arange(x.shape[1]) != HIDDEN + torch.arange(rows)[:, None]
    mask = AttentionMask(visible_keys=seen)
    return mask.bias(x.shape[1], slice(None), dtype=dtype, device=x.device)[:, :, outputs]


def textbook(attention: Attention, x: Tensor, bias: Tensor, outputs: slice) -> Tensor:
    parts = attention.input(x).chunk(3, dim=-1)
    query, key, value = (p.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for p in parts)
    scores = query[:, :, outputs] @ key.mT / query.shape[-1] ** 0.5 + bias
    mixed = torch.softmax(scores, dim=-1) @ value
    out: Tensor = attention.output(mixed.transpose(1, 2).flatten(2))
    return out


def gradients(out: Tensor, attention: Attention, x: Tensor) -> list[Tensor]:
    weights = torch.randn(out.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(6))
    return list(torch.autograd.grad((out * weights).sum(), [x, *attention.parameters()]))


@given(
    length=st.integers(1, 150),
    heads=st.sampled_from([1, 3]),
    rows=st.sampled_from([1, BATCH]),
    outputs=OUTPUTS,
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_textbooks_attention(length: int, heads: int, rows: int, outputs: slice) -> None:
    attention, x = build(length, heads=heads)
    bias = limits(x, outputs, rows=rows)
    ours, theirs = attention(x, bias, outputs, None), textbook(attention, x, bias, outputs)
    assert torch.allclose(ours, theirs, atol=1e-12)
    pairs = zip(gradients(ours, attention, x), gradients(theirs, attention, x), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("outputs", [slice(None), slice(1, None, 2)])
def test_the_gradient_under_dropout(outputs: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", 3)
    attention, x = build(7, dropout=0.3)
    bias = limits(x, outputs)

    def out(x: Tensor) -> Tensor:
        torch.manual_seed(5)  # the same weights are dropped
        result: Tensor = attention(x, bias, outputs, None)
        return result

    assert torch.autograd.gradcheck(out, (x,))
    dropped = out(x)
    attention.eval()
    assert not torch.allclose(out(x), dropped)


def test_dropout_keeps_the_mean() -> None:
    attention, x = build(70, dropout=0.5, dtype=torch.float32)
    bias = limits(x, slice(None))
    torch.manual_seed(1)
    with torch.no_grad():
        drawn = torch.stack([attention(x, bias, slice(None), None) for _ in range(400)])
        exact = attention.eval()(x, bias, slice(None), None)
    assert (drawn.std(0) > 1e-3).all()
    deviates = (drawn.mean(0) - exact) / (drawn.std(0) / 20)
    assert deviates.abs().mean() < 1.2  # of a normal distribution 0.8


def test_maps_change_no_gradient() -> None:
    attention, x = build(70)
    bias, maps = limits(x, slice(None)), list[Tensor]()
    with_maps = gradients(attention(x, bias, slice(None), maps), attention, x)
    without = gradients(attention(x, bias, slice(None), None), attention, x)
    assert all(torch.equal(a, b) for a, b in zip(with_maps, without, strict=True))
    assert maps[0].shape == (BATCH, 3, 70, 70)
    assert torch.allclose(maps[0].sum(-1), torch.ones(BATCH, 3, 70, dtype=torch.float64))


def near_float32(outputs: slice) -> list[Tensor]:
    """Output and gradients in bf16, which are near those in float32."""
    attention, x = build(80, dropout=0.3, dtype=torch.float32)

    def run() -> list[Tensor]:
        torch.manual_seed(5)
        out = attention(x, limits(x, outputs), outputs, None)
        return [out, *gradients(out, attention, x)]

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        near = run()
    for a, b in zip(near, exact, strict=True):
        assert (a - b).abs().max() < 0.03 * b.abs().max()
    return near


@pytest.mark.parametrize("outputs", [slice(None), slice(0, None, 3)])
def test_bf16_is_near_float32(outputs: slice) -> None:
    near_float32(outputs)


def test_softmax_as_cuda_casts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast there makes float32 of a softmax that names no dtype."""
    softmax = torch.softmax

    def cast(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        return softmax(x, dim, dtype=dtype or torch.float32)

    expected = near_float32(slice(None))
    monkeypatch.setattr(torch, "softmax", cast)
    assert all(torch.equal(a, b) for a, b in zip(near_float32(slice(None)), expected, strict=True))


def test_what_needs_no_gradient_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x = build(70)
    attention.requires_grad_(False)
    sizes: list[int] = []
    saved = torch.autograd.function.FunctionCtx.save_for_backward

    def count(ctx: torch.autograd.function.FunctionCtx, *tensors: Tensor) -> None:
        sizes.append(len(tensors))
        saved(ctx, *tensors)

    monkeypatch.setattr(torch.autograd.function.FunctionCtx, "save_for_backward", count)
    attention(x.detach(), limits(x, slice(None)), slice(None), None)
    with torch.no_grad():
        attention.requires_grad_(True)(x, limits(x, slice(None)), slice(None), None)
    assert sizes == [0, 0]
    attention(x, limits(x, slice(None)), slice(None), None)
    assert sizes[-1] > 0


def test_no_rows() -> None:
    attention, x = build(5)
    for rows in (0, 1):
        assert attention(x[:0], limits(x, slice(None), rows=rows), slice(None), None).shape == (
            0,
            5,
            WIDTH,
        )
