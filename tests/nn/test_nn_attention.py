"""Attention's own gradient against autograd's, and its blocks against one piece."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trajlm.nn import attention as module
from trajlm.nn.attention import Attention
from trajlm.nn.transformer import AttentionMask

WIDTH, BATCH = 12, 2


def parts(
    length: int, dropout: float, *, heads: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Attention, Tensor]:
    torch.manual_seed(length)
    attention = Attention(WIDTH, heads, dropout=dropout).to(dtype)
    return attention, torch.randn(BATCH, length, WIDTH, dtype=dtype, requires_grad=True)


def gradients(
    attention: Attention, x: Tensor, outputs: slice, maps: list[Tensor] | None
) -> list[Tensor]:
    """Output and gradients; with `maps` those of plain operations, by autograd."""
    seen = torch.arange(x.shape[1]).expand(BATCH, -1) != 3
    scores = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    bias = AttentionMask(visible_keys=seen).bias(x.shape[1], outputs, dtype=scores, device=x.device)
    torch.manual_seed(5)
    out = attention(x, bias, outputs, maps)
    weights = torch.randn(out.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(6))
    return [out, *torch.autograd.grad((out * weights).sum(), [x, *attention.parameters()])]


@given(
    length=st.integers(1, 150),
    dropout=st.sampled_from([0.0, 0.3]),
    heads=st.sampled_from([1, 3]),
    outputs=st.sampled_from([slice(None), slice(-1, None), slice(0, None, 3)]),
)
@settings(max_examples=40, deadline=None)
def test_the_gradient_is_autograds(length: int, dropout: float, heads: int, outputs: slice) -> None:
    attention, x = parts(length, dropout, heads=heads)
    ours = gradients(attention, x, outputs, None)
    theirs = gradients(attention, x, outputs, [])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("length", [64, 65, 150])
def test_blocks_are_one_window(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x = parts(length, 0.0)
    blocks = gradients(attention, x, slice(None), None)
    monkeypatch.setattr(module, "QUERY_BLOCK", 200)
    whole = gradients(attention, x, slice(None), None)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(blocks, whole, strict=True))


def test_bf16_is_near_float32() -> None:
    attention, x = parts(80, 0.3, dtype=torch.float32)
    exact = gradients(attention, x, slice(None), None)
    with torch.autocast("cpu", torch.bfloat16):
        near = gradients(attention, x, slice(None), None)
    for a, b in zip(near, exact, strict=True):
        assert a.dtype in (torch.float32, torch.bfloat16)
        assert (a - b).abs().max() < 0.03 * b.abs().max()
