"""What others do, to be measured beside us: `transformers`' Decision Transformer and the public
tutorial's way of acting with it, one environment and one window at a time."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from trajlm.core.errors import UsageError
from trajlm.sequence.batch import SequenceBatch


def transformers_model(*, observation_size: int, action_size: int, horizon: int) -> Any:
    """`transformers`' model in the published size. Raises `UsageError` where it is not installed."""
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        raise UsageError(
            'this comparison needs transformers: pip install "trajlm[bench]"'
        ) from None
    library.logging.set_verbosity_error()
    config = library.DecisionTransformerConfig(
        state_dim=observation_size,
        act_dim=action_size,
        hidden_size=128,
        max_ep_len=horizon,
        n_inner=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    return library.DecisionTransformerModel(config)


def transformers_loss(model: Any, batch: SequenceBatch, *, return_scale: float) -> Tensor:
    """The published loss of a batch of normalised states: squared error where the mask is 1."""
    predicted = model(
        states=batch.columns["observations"],
        actions=batch.actions,
        rewards=None,
        returns_to_go=batch.columns["returns_to_go"][..., None] / return_scale,
        timesteps=batch.timesteps,
        attention_mask=batch.mask.long(),
    ).action_preds
    return torch.nn.functional.mse_loss(predicted[batch.mask], batch.actions[batch.mask])


@torch.no_grad()
def tutorial_action(
    model: Any, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor
) -> Tensor:
    """The tutorial's `get_action`: the last 20 steps, padded on the left, all heads computed.

    `states` (T, S), `actions` (T, A), `returns_to_go` (T,), `timesteps` (T,): the whole episode
    so far; gives (A,).
    """
    length = 20

    def window(x: Tensor) -> Tensor:
        x = x[-length:]
        padding = torch.zeros((length - len(x), *x.shape[1:]), dtype=x.dtype)
        return torch.cat([padding, x])[None]

    mask = torch.cat(
        [torch.zeros(length - min(len(states), length)), torch.ones(min(len(states), length))]
    ).long()[None]
    predicted = model(
        states=window(states),
        actions=window(actions),
        rewards=None,
        returns_to_go=window(returns_to_go[:, None]),
        timesteps=window(timesteps),
        attention_mask=mask,
        return_dict=False,
    )[1]
    action: Tensor = predicted[0, -1]
    return action
