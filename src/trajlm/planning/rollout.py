"""Open-loop rollouts of a transformer over slots: whole transitions, one after another.

Each transition is predicted from the last `context` - 1 whole ones and the present observation, so
that the window slides by whole transitions and the first one in sight has the first positions, as in
training. What is in sight goes through the network once a transition, then each new token once
(`cached.py`).

Legend: N episodes, H horizon, D slots of a transition, O observation entries, A action entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trajlm.core.errors import UsageError
from trajlm.core.protocols import Past, Policy, Prediction
from trajlm.core.seeding import uniform
from trajlm.core.spec import DictSpace
from trajlm.nn.discretizer import Discretizer
from trajlm.nn.sampling import Filter
from trajlm.planning.beam import Slot, choose
from trajlm.planning.cached import CachedModel
from trajlm.planning.tokens import SlotNetwork
from trajlm.planning.window import Window

ROLLOUT_STREAM = 0x4011_0000
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class TokenWorld:
    """A `WorldModel` of tokens. `context`: transitions in sight, the present one among them; 1 is a
    Markovian model. What it predicts lies in the bins, hence within the range of the data."""

    network: SlotNetwork
    discretizer: Discretizer
    context: int
    models_actions: bool = True

    def __post_init__(self) -> None:
        layout = self.network.layout
        longest = (self.network.block_size - layout.observation_size) // layout.size
        if not 1 <= self.context <= longest:
            raise UsageError(
                f"context: {self.context} is not in 1..{longest}; the model's block holds as many "
                "transitions with the observation after them"
            )
        if isinstance(layout.observation, DictSpace):
            raise UsageError("observations: a rollout takes one vector, not several by name")

    @torch.inference_mode()
    def predict(
        self,
        past: Past,
        *,
        horizon: int,
        actions: np.ndarray | Policy | None = None,
        seeds: np.ndarray | None = None,
    ) -> Prediction:
        """What follows `past`: every token drawn as the model believes, keyed by `seeds` (N,), step
        and slot; without them the likeliest token at each place. Actions (N, H, ...) are as given,
        else the model's. Raises `UsageError` for a policy."""
        if actions is not None and not isinstance(actions, np.ndarray):
            raise UsageError(
                "actions: this model chooses its own or takes recorded ones, no policy's"
            )
        count = len(past.observations)
        blocks = [
            np.arange(first, min(first + ROWS_AT_ONCE, count))
            for first in range(0, count, ROWS_AT_ONCE)
        ]
        model = CachedModel(self.network, self._window)
        parts = [
            self._rows(
                model,
                past.last(self.context).select(rows),
                horizon=horizon,
                actions=None if actions is None else actions[rows],
                seeds=None if seeds is None else seeds[rows],
            )
            for rows in blocks
        ]
        return self._decoded(torch.cat(parts))

    @property
    def _window(self) -> Window:
        """All that is handed over is in sight."""
        return Window(
            kind="full_block",
            slots=self.network.layout.size,
            context=self.context,
            block=self.network.block_size,
        )

    def _rows(
        self,
        model: CachedModel,
        past: Past,
        *,
        horizon: int,
        actions: np.ndarray | None,
        seeds: np.ndarray | None,
    ) -> Tensor:
        """Tokens (N, H, D): action, reward, value, and the observation after them."""
        layout, device = self.network.layout, self.network.position.device
        sight = self._past_tokens(past).to(device)
        given = None if actions is None else self._action_tokens(actions).to(device)
        found = []
        for step in range(horizon):
            whole = sight.shape[1] + layout.size
            if given is not None:
                sight = torch.cat([sight, given[:, step]], dim=1)
            logits = model.prefill(sight)
            while True:
                token = self._chosen(logits, sight.shape[1] % layout.size, step=step, seeds=seeds)
                sight = torch.cat([sight, token[:, None]], dim=1)
                if sight.shape[1] == whole:
                    break
                logits = model.step(token)
            found.append(sight[:, -layout.size :])
            kept = (self.context - 1) * layout.size + layout.observation_size
            sight = sight[:, -kept:]
        return torch.stack(found, dim=1)

    def _chosen(self, logits: Tensor, slot: int, *, step: int, seeds: np.ndarray | None) -> Tensor:
        keep = Filter(top_k=1) if seeds is None else Filter()
        uniforms = None
        if seeds is not None:
            drawn = uniform(seeds, np.full(len(seeds), step), lanes=1, stream=ROLLOUT_STREAM + slot)
            uniforms = torch.from_numpy(drawn[:, 0]).to(logits.device)
        # A stop token is no candidate: a rollout goes on as long as it is asked to.
        return choose(logits, Slot(index=slot, keep=keep, allowed=self.network.num_bins), uniforms)

    def _past_tokens(self, past: Past) -> Tensor:
        """(N, (K - 1) x D + O): whole transitions, and the present observation."""
        layout = self.network.layout
        count, known = past.observations.shape[:2]
        flat = {"observations": past.observations.reshape(count * known, -1)}
        rows = np.zeros((count, known, layout.size), np.float32)
        rows[..., : layout.observation_size] = layout.observation_rows(flat).reshape(
            count, known, -1
        )
        if known > 1:
            between = past.actions.reshape(count * (known - 1), *past.actions.shape[2:])
            rows[:, :-1, layout.actions] = layout.action_rows(between).reshape(count, known - 1, -1)
            rows[:, :-1, layout.reward] = past.rewards
        device = self.network.position.device
        tokens = self.discretizer.encode(torch.from_numpy(rows).to(device))
        tokens[..., layout.value] = 0  # never seen
        return tokens.flatten(1)[:, : (known - 1) * layout.size + layout.observation_size]

    def _action_tokens(self, actions: np.ndarray) -> Tensor:
        """(N, H, A)."""
        layout, (count, horizon) = self.network.layout, actions.shape[:2]
        rows = layout.action_rows(actions.reshape(count * horizon, *actions.shape[2:]))
        entries = torch.from_numpy(rows.reshape(count, horizon, -1))
        return self.discretizer.encode(
            entries.to(self.network.position.device), first=layout.actions.start
        )

    def _decoded(self, tokens: Tensor) -> Prediction:
        """Tokens (N, H, D) as `_rows` gives them, in raw units."""
        layout = self.network.layout
        size = layout.observation_size
        # In a transition's order the observation comes first.
        rows = self.discretizer.decode(tokens.roll(size, dims=2)).cpu().numpy()
        acted = layout.actions_of(rows[..., layout.actions].reshape(-1, layout.action_size))
        return Prediction(
            observations=rows[..., :size],
            actions=acted.reshape(*rows.shape[:2], *acted.shape[1:]),
            rewards=rows[..., layout.reward],
        )
