"""A feed-forward network over the last K observations, and how it acts.

The published baseline of the Decision Transformer (Chen et al. 2021): K normalised states laid
side by side, linear layers with ReLU and dropout, a linear head (tanh where actions are bounded).
Steps before an episode's start are zeros, after normalisation.

Legend: B batch, M steps learned from, N slots, K frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trajlm.core.config import overridden
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Critic, Step
from trajlm.core.spec import DataSpec, Space
from trajlm.nn.features import features
from trajlm.nn.heads import ActionHead, action_head
from trajlm.nn.history import action_dtype, append_observation, empty_windows, newest
from trajlm.nn.losses import masked_mean


class FrameNetwork(nn.Module):
    """Actions from the last `frames` observations. `head` makes what says them."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        frames: int,
        width: int,
        num_layers: int,
        dropout: float,
        fitted: Mapping[str, np.ndarray],
        head: Callable[[Space, int], ActionHead] = action_head,
    ) -> None:
        super().__init__()
        self.spec, self.frames = spec, frames
        self.features = features(spec.observation, name="observations", fitted=fitted)
        sizes = [frames * self.features.size, *([width] * (num_layers - 1))]
        layers: list[nn.Module] = []
        for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(size_in, size_out), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = head(spec.action, sizes[-1])

    def hidden(self, observations: Any, *, visible: Tensor) -> Tensor:
        """What the head reads for the newest of K frames (B, K, ...): (B, 1, D).

        `visible` (B, K) bool: frames that are not before the episode's start.
        """
        frames = self.features(observations) * visible[..., None]
        hidden: Tensor = self.body(frames.flatten(1)[:, None])
        return hidden

    def loss(
        self, observations: Any, actions: Tensor, *, mask: Tensor, timesteps: Tensor
    ) -> Tensor:
        """The mean of the head's error over windows (B, K, ...) of K steps.

        A window is learned from at its last step, which has its K frames; one at its episode's
        start at every step. So each step of an episode is learned from in exactly one window.
        """
        order = torch.arange(self.frames, device=mask.device)
        learned = mask & ((timesteps[:, :1] == 0) | (order == self.frames - 1))
        window, last = learned.nonzero(as_tuple=True)
        rows = last[:, None] + order - (self.frames - 1)  # (M, K)
        frames = _take(observations, window[:, None], rows.clamp_min(0))
        error = self.head.loss(
            self.hidden(frames, visible=rows >= 0), actions[window, last][:, None]
        )
        return masked_mean(error, torch.ones_like(error, dtype=torch.bool))


def _take(values: Any, window: Tensor, rows: Tensor) -> Any:
    """Steps `rows` (M, K) of the windows `window` (M, 1), leaf by leaf of a mapping."""
    if isinstance(values, Mapping):
        return {name: _take(leaf, window, rows) for name, leaf in values.items()}
    return values[window, rows]


@dataclass(frozen=True, kw_only=True)
class FrameCarry:
    """The last K observations of N slots, newest last. `steps` (N,) int64: seen in this episode."""

    observations: Mapping[str, Tensor]
    steps: Tensor

    def select(self, index: np.ndarray) -> FrameCarry:
        """The memory of the slots at `index` (M,)."""
        rows = torch.as_tensor(index, device=self.steps.device)
        return FrameCarry(
            observations={name: window[rows] for name, window in self.observations.items()},
            steps=self.steps[rows],
        )


@dataclass(frozen=True)
class FramePolicy:
    """Acts with a `FrameNetwork`; it is asked for nothing, so conditions are not looked at.

    `temperature`: 0 takes the likeliest action, above it they are drawn, where the head can draw.
    """

    network: FrameNetwork
    temperature: float = 0.0

    def initial(self, num_envs: int, condition: Condition | None = None) -> FrameCarry:
        """An empty memory."""
        device = next(self.network.parameters()).device
        return FrameCarry(
            observations=empty_windows(
                self.network.spec.observation,
                num_envs,
                length=self.network.frames,
                device=device,
            ),
            steps=torch.zeros(num_envs, dtype=torch.int64, device=device),
        )

    @torch.inference_mode()
    def act(self, carry: FrameCarry, step: Step) -> tuple[FrameCarry, np.ndarray]:
        """The carry with this step in it, and the actions (N, ...) within the bounds."""
        first = torch.as_tensor(step.is_first, device=carry.steps.device)
        carry = replace(
            carry,
            observations=append_observation(carry.observations, step.observation),
            steps=torch.where(first, 0, carry.steps) + 1,
        )
        frames = self.network.frames
        ages = torch.arange(frames - 1, -1, -1, device=carry.steps.device)
        hidden = self.network.hidden(
            newest(carry.observations, frames), visible=ages < carry.steps[:, None]
        )
        action = self.network.head.choose(
            hidden[:, 0],
            temperature=self.temperature,
            seed=step.seed,
            step=carry.steps.cpu().numpy(),
        )
        return carry, action.cpu().numpy().astype(action_dtype(self.network.spec.action))


def frame_policy(
    defaults: type,
    network: FrameNetwork,
    config: Any,
    *,
    guide: Critic | None,
    overrides: Mapping[str, Any],
    refusal: str,
) -> FramePolicy:
    """The policy of `network` by an algorithm's policy configuration, `defaults()` where None.

    Raises `UsageError` for an unknown override and, with the words of `refusal`, for a guide.
    """
    if guide is not None:
        raise UsageError(refusal)
    config = overridden(config or defaults(), overrides, name="policy")
    return FramePolicy(network, temperature=config.temperature)
