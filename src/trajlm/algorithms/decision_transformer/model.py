"""The Decision Transformer's model, as published for continuous control, and its loss.

Tokens of a step: return-to-go, state, action, each through its own encoder, plus one learned
embedding of the absolute timestep shared by the three, then a layer norm. The action is read from
the state token, which sees the returns and states up to now and the actions before.

Deliberate differences from the published code, none of which changes the maths of a real step:
- windows are padded on the right, so the causal mask is the only one (no padding value is seen);
- the last layer runs for the state tokens alone, the only ones that are read;
- no state and return heads: the published ones are never trained (imported ones are carried);
- states are normalised first and padded after, in training and acting alike (the published code
  pads first in training: known for its mismatch with evaluation).

With `predict_returns` (the published paper's critic) a head reads the return-to-go from
the state token, in windows whose returns are hidden: a learned vector stands in their place. Every
fourth window of a batch is such a one, the others are learned from as ever; so one model both acts
on a return and, without knowing it, foretells it.

Legend: B batch, T = K steps, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.algorithms.decision_transformer.config import Config, PolicyConfig
from trajlm.algorithms.decision_transformer.policy import DecisionTransformerPolicy
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic
from trajlm.core.spec import Box, DataSpec, leaves
from trajlm.data.columns import discounted_sum_to_go
from trajlm.data.statistics import fitted_statistics
from trajlm.data.store import TrajectoryStore
from trajlm.nn.encoders import action_encoder, encoder
from trajlm.nn.heads import action_head
from trajlm.nn.interleave import interleave
from trajlm.nn.losses import masked_mean
from trajlm.nn.returns import ReturnHead
from trajlm.nn.transformer import AttentionMask, Transformer, TransformerConfig, initialize
from trajlm.sequence.batch import SequenceBatch, WindowRequest

STATE_TOKENS = slice(1, None, 3)


class Model(Algorithm):
    """pi(a_t | R_{t-K+1..t}, s_{t-K+1..t}, a_{t-K+1..t-1})."""

    return_scale: Tensor

    def __init__(self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, spec)
        width = config.width
        self.register_buffer("return_scale", torch.tensor(float(fitted.get("return_scale", 1.0))))
        self.embed_return = nn.Linear(1, width)
        self.embed_observation = encoder(
            spec.observation, width, name="observations", fitted=fitted
        )
        self.embed_action = action_encoder(spec.action, width)
        self.embed_timestep = nn.Embedding(timestep_rows(config, spec), width)
        self.embed_norm = nn.LayerNorm(width)
        self.head = action_head(spec.action, width)
        if config.published_parts:
            self.published = PublishedParts(spec, width)
        if config.predict_returns:
            low, high = fitted.get("return_range", np.array([0.0, 1.0])).tolist()
            self.return_head = ReturnHead(width, low=low, high=high, bins=config.return_bins)
            self.hidden_return = nn.Parameter(torch.zeros(width))
        self.apply(partial(initialize, deviation=config.initial_deviation))
        self.transformer = Transformer(
            TransformerConfig(
                width=width,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                mlp_width=config.mlp_width,
                activation=config.activation,
                residual_dropout=config.dropout,
                attention_dropout=config.dropout,
                initial_deviation=config.initial_deviation,
            )
        )

    @classmethod
    def prepare(cls, config: Config, store: TrajectoryStore) -> Prepared:
        """Adds `returns_to_go`, drops unfinished episodes, fits state statistics and the scale."""
        store = store.finished
        returns_to_go = [
            discounted_sum_to_go(segment.columns["rewards"], segment.offsets).astype(np.float32)
            for segment in store.segments
        ]
        fitted = fitted_statistics(store)
        largest = float(np.abs(store.returns).max(initial=0.0))
        scale = config.return_scale or (largest / 5.0 if largest > 0 else 1.0)
        fitted["return_scale"] = np.array(scale)
        if config.predict_returns:
            ends = [(part.min(), part.max()) for part in returns_to_go if len(part)]
            low, high = min(low for low, _ in ends), max(high for _, high in ends)
            fitted["return_range"] = np.array([low, max(high, low + 1e-6)])
        return Prepared(store=store.with_column("returns_to_go", returns_to_go), fitted=fitted)

    @classmethod
    def build(cls, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        return cls(config, spec, fitted)

    @classmethod
    def windows(cls, config: Config, spec: DataSpec) -> WindowRequest:
        observations = tuple(leaves(spec.observation, "observations"))
        return WindowRequest(
            length=config.context_length,
            columns=(*observations, "actions", "returns_to_go"),
            from_start=config.from_start,
        )

    def forward(self, batch: SequenceBatch) -> Loss:
        """The head's error of the recorded actions, mean over real steps.

        Squared error of continuous actions, as published; cross-entropy of discrete ones. With
        `predict_returns` the mean over three windows of four, plus the return head's over the others.
        """
        known = None
        if self.config.predict_returns:
            known = torch.arange(len(batch), device=batch.mask.device) % 4 != 0
        hidden = self.hidden(
            returns_to_go=batch.columns["returns_to_go"],
            observations=batch.observations,
            actions=batch.actions,
            timesteps=self.counted(batch.timesteps),
            known=known,
        )
        errors = self.head.loss(hidden, batch.actions)
        if known is None:
            loss = masked_mean(errors, batch.mask)
            return Loss(loss, {"loss": loss.detach()})
        acting = masked_mean(errors, batch.mask & known[:, None])
        foretold = self.return_head.loss(hidden, batch.columns["returns_to_go"])
        foretelling = masked_mean(foretold, batch.mask & ~known[:, None])
        loss = acting + foretelling
        metrics = {"loss": loss, "action_loss": acting, "return_loss": foretelling}
        return Loss(loss, {name: value.detach() for name, value in metrics.items()})

    def counted(self, timesteps: Tensor) -> Tensor:
        """An episode's timesteps (B, T), newest last, as this model counts them."""
        if self.config.window_timesteps:
            return (timesteps - timesteps[:, :1]).clamp(min=0)
        return timesteps

    def hidden(
        self,
        *,
        returns_to_go: Tensor,
        observations: Any,
        actions: Tensor,
        timesteps: Tensor,
        visible: Tensor | None = None,
        known: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """What the head reads at each step: (B, T, D), or (B, 1, D) for the last step alone.

        `returns_to_go` (B, T), `observations` (B, T, ...) and `actions` (B, T, ...) raw (the last
        action is not looked at), `timesteps` (B, T); `visible` (B, T) bool where some steps are
        padding on the left. `known` (B,) bool, where returns are predicted: windows whose returns
        are shown; None shows all.
        """
        time = self.embed_timestep(timesteps)
        asked = self.embed_return((returns_to_go / self.return_scale)[..., None])
        if known is not None:
            asked = torch.where(known[:, None, None], asked, self.hidden_return.to(asked.dtype))
        tokens = interleave(
            asked + time,
            self.embed_observation(observations) + time,
            self.embed_action(actions) + time,
        )
        tokens = self.embed_norm(tokens)
        mask = AttentionMask(
            visible_keys=None if visible is None else visible.repeat_interleave(3, dim=1)
        )
        outputs = STATE_TOKENS
        if last_only:
            # The last action token is a placeholder that nothing before it sees.
            tokens, outputs = tokens[:, :-1], slice(tokens.shape[1] - 2, None)
            if mask.visible_keys is not None:
                mask = AttentionMask(visible_keys=mask.visible_keys[:, :-1])
        hidden: Tensor = self.transformer(tokens, mask=mask, outputs=outputs)
        return hidden

    @torch.inference_mode()
    def foretell(
        self,
        *,
        observations: Any,
        actions: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """The return expected from each step on, (B, T), of what has been seen until then.

        Arguments as of `hidden`. Needs `predict_returns`; raises `UsageError` without it.
        """
        if not self.config.predict_returns:
            raise UsageError("foretell: this model predicts no returns; train predict_returns")
        hidden = self.hidden(
            returns_to_go=torch.zeros(timesteps.shape, device=timesteps.device),
            observations=observations,
            actions=actions,
            timesteps=timesteps,
            known=torch.zeros(len(timesteps), dtype=torch.bool, device=timesteps.device),
        )
        return self.return_head.mean(hidden)

    def policy(
        self, config: PolicyConfig | None = None, *, guide: Critic | None = None, **overrides: Any
    ) -> DecisionTransformerPolicy:
        """Acts with this model. `overrides` are fields of `PolicyConfig`."""
        if guide is not None:
            raise UsageError("a Decision Transformer takes no guide")
        return DecisionTransformerPolicy.of(self, config or PolicyConfig(), **overrides)

    def flops_per_step(self, batch_size: int) -> float:
        """Of one update: 6 a weight and token, the last layer's partial work counted as it is."""
        width, mlp = self.config.width, self.config.mlp_width or 4 * self.config.width
        full = 4 * width * width + 2 * width * mlp
        last = 2 * width * width + (2 * width * width + 2 * width * mlp) / 3
        weights = (self.config.num_layers - 1) * full + last
        return float(6.0 * weights * batch_size * 3 * self.config.context_length)


class PublishedParts(nn.Module):
    """What the published model has and never reads: two heads and a token table of one row."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__()
        size = spec.observation.size if isinstance(spec.observation, Box) else 1
        self.state = nn.Linear(width, size)
        self.returns = nn.Linear(width, 1)
        self.token = nn.Parameter(torch.zeros(1, width))


def timestep_rows(config: Config, spec: DataSpec) -> int:
    """Rows of the timestep table. Raises `UsageError` where the data's episodes are longer."""
    rows = config.max_timestep or spec.horizon
    if rows < spec.horizon:
        raise UsageError(
            f"max_timestep: {rows} is less than the data's longest episode, {spec.horizon} steps"
        )
    return rows
