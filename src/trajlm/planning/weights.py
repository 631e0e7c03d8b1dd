"""A block's weights as planners multiply by them: few rows at a time, through weights that no cache
holds.

Legend: M rows, W width, H heads, E = W / H, A columns of a product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trajlm.nn.transformer import Block

FEW_ROWS = 32
"""Up to so many rows the MLP is multiplied in squares."""


@dataclass(frozen=True)
class LayerWeights:
    """A block's weights as a planner multiplies by them.

    Transposed and contiguous, which halves a product of few rows; the query's hold the scale of
    attention; queries, keys and values of a head lie side by side. Heads come first, so that the
    products of attention, by row, by beam or by environment, take views. `squares`: the MLP's input
    again, cut into a batch of products, which is faster for few rows.

    Their dtype is that of the products by them. All else keeps the block's, attention too: in bf16 its
    products would copy keys and values, which do not lie densely.
    """

    block: Block
    heads: int
    mixed: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    mlp_input: tuple[Tensor, Tensor]
    mlp_output: tuple[Tensor, Tensor]
    squares: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: Block, dtype: torch.dtype | None = None) -> LayerWeights:
        """`dtype`: the block's own by default."""
        heads = block.attention.num_heads
        linear = block.attention.input
        width, dtype = linear.in_features, dtype or linear.weight.dtype
        scale = torch.ones_like(linear.bias)
        scale[:width] = (width // heads) ** -0.5

        def by_head(x: Tensor, first: int) -> Tensor:
            """(3 x W, A) with the parts `first`.. of a head side by side: (H, A, parts x E)."""
            parts = x.view(3, heads, width // heads, -1)[first:]
            return parts.permute(1, 3, 0, 2).flatten(2).to(dtype).contiguous()

        weight, bias = linear.weight * scale[:, None], linear.bias * scale
        mlp_input = _transposed(block.mlp_input, dtype)
        hidden = block.mlp_input.out_features
        parts = hidden // width if hidden % width == 0 else 1
        return cls(
            block=block,
            heads=heads,
            mixed=(by_head(weight, 0), by_head(bias, 0)),
            keys=(by_head(weight, 1), by_head(bias, 1)),
            output=_transposed(block.attention.output, dtype),
            mlp_input=mlp_input,
            mlp_output=_transposed(block.mlp_output, dtype),
            squares=(
                mlp_input[0].view(width, parts, -1).transpose(0, 1).contiguous(),
                mlp_input[1].view(parts, 1, -1),
            ),
        )

    @property
    def like(self) -> Tensor:
        """(H, 1, E): a tensor of the kind of its keys and values."""
        return self.block.norm_mlp.weight.view(self.heads, 1, -1)

    def project(self, x: Tensor) -> Tensor:
        """(M, W) -> scaled queries, keys and values side by side, (H, M, 3, E)."""
        return self._by_head(x, self.mixed).view(self.heads, len(x), 3, -1)

    def project_keys(self, x: Tensor) -> Tensor:
        """Keys and values alone, (H, M, 2, E)."""
        return self._by_head(x, self.keys).view(self.heads, len(x), 2, -1)

    def _by_head(self, x: Tensor, linear: tuple[Tensor, Tensor]) -> Tensor:
        normed = _norm(x, self.block.norm_attention).to(linear[0].dtype)
        product = torch.bmm(normed.expand(self.heads, -1, -1), linear[0])
        return product.add_(linear[1]).to(x.dtype)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Both residual branches, from what attention mixed (H, M, E): (M, W) -> (M, W)."""
        joined = mixed.transpose(0, 1).reshape(x.shape).to(self.output[0].dtype)
        x = torch.addmm(self.output[1], joined, self.output[0]).to(x.dtype).add_(x)
        normed = _norm(x, self.block.norm_mlp).to(joined.dtype)
        activation = self.block.activation
        if len(x) > FEW_ROWS:
            hidden = activation(torch.addmm(self.mlp_input[1], normed, self.mlp_input[0]))
            out = torch.addmm(self.mlp_output[1], hidden, self.mlp_output[0])
            return out.to(x.dtype).add_(x)
        weight, bias = self.squares
        hidden = activation(torch.bmm(normed.expand(len(weight), -1, -1), weight).add_(bias))
        parts = torch.bmm(hidden, self.mlp_output[0].view(len(weight), -1, x.shape[1]))
        return parts.sum(0).add_(self.mlp_output[1]).to(x.dtype).add_(x)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """As the module, without the cost of calling one."""
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _transposed(linear: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return linear.weight.T.to(dtype).contiguous(), linear.bias.to(dtype)
