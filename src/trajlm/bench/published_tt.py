"""The published Trajectory Transformer in plain float32 PyTorch, and its planner without a cache.

Written from the description of the authors' 2021 code, to be measured beside ours and to check it:
minGPT's blocks, attention with a mask that hides value tokens, a head for each slot over padded
whole transitions, and a planner that runs the cropped window of every row again for each token.
Left out is what costs without changing a number: the copy of attention that each layer keeps.
Names of parameters are the authors', so that their weights load.

Legend: B rows, L tokens, D slots of a transition, N bins, V = N + 1, W width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.nn.sampling import Filter, draw
from trajlm.planning.beam import Draws
from trajlm.sequence.batch import SequenceBatch


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model. `block`: L of a whole window."""

    observation: int
    action: int
    block: int
    num_bins: int = 100
    width: int = 128
    num_layers: int = 4
    num_heads: int = 4
    dropout: float = 0.1

    @property
    def slots(self) -> int:
        """D."""
        return self.observation + self.action + 2


class Attention(nn.Module):
    """Causal attention; the columns of value tokens are hidden from all."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.key = nn.Linear(shape.width, shape.width)
        self.query = nn.Linear(shape.width, shape.width)
        self.value = nn.Linear(shape.width, shape.width)
        self.proj = nn.Linear(shape.width, shape.width)
        self.attn_drop = nn.Dropout(shape.dropout)
        self.resid_drop = nn.Dropout(shape.dropout)
        self.num_heads = shape.num_heads
        mask = torch.tril(torch.ones(shape.block, shape.block))
        mask[:, shape.slots - 1 :: shape.slots] = 0
        self.register_buffer("mask", mask[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, count, width = x.shape
        query, key, value = (
            linear(x).view(rows, count, self.num_heads, -1).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) * (1.0 / math.sqrt(key.shape[-1]))
        scores = scores.masked_fill(self.mask[:, :, :count, :count] == 0, -torch.inf)
        mixed = self.attn_drop(functional.softmax(scores, dim=-1)) @ value
        joined = mixed.transpose(1, 2).contiguous().view(rows, count, width)
        dropped: Tensor = self.resid_drop(self.proj(joined))
        return dropped


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attn = Attention(shape)
        self.mlp = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width),
            nn.GELU(),
            nn.Linear(4 * shape.width, shape.width),
            nn.Dropout(shape.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        mixed: Tensor = self.mlp(self.ln2(x))
        return x + mixed


class SlotLinear(nn.Module):
    """A linear map without bias for each slot: (B, D, W) -> (B, D, V)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape.slots, shape.num_bins + 1, shape.width))
        for slot in self.weight.detach():
            nn.init.kaiming_uniform_(slot, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("dvw,bdw->bdv", self.weight, x)


class PublishedModel(nn.Module):
    """The logits (B, L, V) of all positions of (B, L) tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tok_emb = nn.Embedding(shape.num_bins * shape.slots + 1, shape.width)
        self.pos_emb = nn.Parameter(torch.zeros(1, shape.block, shape.width))
        self.drop = nn.Dropout(shape.dropout)
        self.blocks = nn.Sequential(*[Block(shape) for _ in range(shape.num_layers)])
        self.ln_f = nn.LayerNorm(shape.width)
        self.head = SlotLinear(shape)
        self.apply(_initialize)

    def forward(self, tokens: Tensor) -> Tensor:
        count, slots, bins = tokens.shape[1], self.shape.slots, self.shape.num_bins
        offsets = torch.arange(slots, device=tokens.device) * bins
        rows = tokens + offsets.repeat(math.ceil(count / slots))[:count]
        rows[tokens == bins] = bins * slots
        x = self.drop(self.tok_emb(rows) + self.pos_emb[:, :count])
        x = self.ln_f(self.blocks(x))
        missing = -count % slots
        x = torch.cat([x, x.new_zeros(len(x), missing, x.shape[-1])], dim=1)
        logits: Tensor = self.head(x.view(-1, slots, x.shape[-1]))
        return logits.reshape(len(tokens), count + missing, bins + 1)[:, :count]


def published_loss(
    logits: Tensor, targets: Tensor, mask: Tensor, *, observation: int, action: int
) -> Tensor:
    """Cross-entropy with an action's tokens five times, divided by all positions.

    `logits` (B, L, V), `targets` and `mask` (B, L).
    """
    batch, count = targets.shape
    weights = torch.cat([torch.ones(observation), 5.0 * torch.ones(action), torch.ones(2)])
    weights = weights.repeat(math.ceil((count + 1) / len(weights)))[1 : count + 1].to(logits)
    nats = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
    )
    return (nats * weights.repeat(batch, 1).view(-1) * mask.reshape(-1)).mean()


def batch_loss(model: PublishedModel, batch: SequenceBatch) -> Tensor:
    """The published loss of whole windows of tokens (B, T, D)."""
    tokens = batch.columns["tokens"].long().flatten(1)
    shape = model.shape
    mask = batch.mask.repeat_interleave(shape.slots, dim=1)[:, :-1]
    return published_loss(
        model(tokens[:, :-1]),
        tokens[:, 1:],
        mask,
        observation=shape.observation,
        action=shape.action,
    )


def shape_of(model: Model) -> Shape:
    config, layout = model.config, model.layout
    return Shape(
        observation=layout.observation_size,
        action=layout.action_size,
        block=model.block_size,
        num_bins=config.num_bins,
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
    )


def published_twin(model: Model) -> PublishedModel:
    """The published model with our weights, in their precision and on their device."""
    ours = model.state_dict()
    theirs = {
        "tok_emb.weight": ours["embed_token.weight"],
        "pos_emb": ours["position"][None],
        "head.weight": ours["head.weight"],
    }
    names = {"ln_f": "transformer.norm"}
    for layer in range(model.config.num_layers):
        block, own = f"blocks.{layer}", f"transformer.blocks.{layer}"
        names |= {
            f"{block}.ln1": f"{own}.norm_attention",
            f"{block}.ln2": f"{own}.norm_mlp",
            f"{block}.attn.proj": f"{own}.attention.output",
            f"{block}.mlp.0": f"{own}.mlp_input",
            f"{block}.mlp.2": f"{own}.mlp_output",
        }
        for kind in ("weight", "bias"):
            parts = ours[f"{own}.attention.input.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                theirs[f"{block}.attn.{name}.{kind}"] = part
    for name, own in names.items():
        theirs |= {f"{name}.{kind}": ours[f"{own}.{kind}"] for kind in ("weight", "bias")}
    twin = PublishedModel(shape_of(model)).to(ours["position"])
    twin.load_state_dict(theirs)
    return twin.train(model.training)


@dataclass(frozen=True, kw_only=True)
class PublishedPlanner:
    """Beam search for offline RL as published, without any cache.

    `values` (D, N): what bins stand for. The next observation, reward and value are the likeliest
    tokens; actions are drawn from the likeliest that hold 1 - `action_cdf` of the probability.
    """

    model: PublishedModel
    values: Tensor
    context: int
    horizon: int
    beam_width: int
    num_samples: int
    action_cdf: float
    discount: float

    @torch.no_grad()
    def plan(self, prefix: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The best plan (S,) after `prefix` (1, L), which ends with an observation; its score ()."""
        shape, rows = self.model.shape, prefix.repeat(self.beam_width, 1)
        likeliest, acted = Filter(top_k=1), Filter(cdf=self.action_cdf)
        rewards = self.values.new_zeros(self.beam_width)
        scores = rewards
        for depth in range(self.horizon):
            rows = rows.repeat_interleave(self.num_samples, dim=0)
            rewards = rewards.repeat_interleave(self.num_samples, dim=0)
            for slot in range(shape.observation, shape.observation + shape.action):
                rows, _ = self._append(rows, acted, draws(depth, slot, len(rows))[0])
            rows, bins = self._append(rows, likeliest, None)
            rewards = rewards + self.discount**depth * (bins @ self.values[-2])
            rows, bins = self._append(rows, likeliest, None)
            scores = rewards + self.discount ** (depth + 1) * (bins @ self.values[-1])
            # Ties go to the earlier row, as in ours.
            scores, best = scores.sort(descending=True, stable=True)
            best = best[: self.beam_width]
            rows, rewards = rows[best], rewards[best]
            if depth < self.horizon - 1:
                for _ in range(shape.observation):
                    rows, _ = self._append(rows, likeliest, None)
        return rows[0, prefix.shape[1] :], scores[0]

    def _append(self, rows: Tensor, keep: Filter, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
        """The rows with one token more, and the probabilities (B, N) of its bins."""
        over = rows.shape[1] - (self.context * self.model.shape.slots - 1)
        crop = max(0, math.ceil(over / self.model.shape.slots)) * self.model.shape.slots
        log_p = functional.log_softmax(self.model(rows[:, crop:])[:, -1], dim=-1)
        chosen = log_p.argmax(-1) if uniforms is None else draw(log_p, keep, uniforms)
        return torch.cat([rows, chosen[:, None]], dim=1), log_p[:, :-1].exp()


def _initialize(module: nn.Module) -> None:
    """minGPT's initial values."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
