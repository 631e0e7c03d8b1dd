"""The last K steps of many slots, newest last: what a policy remembers.

Windows are tensors with a leading slot axis; nothing is changed in place, so a carry is a value.

Legend: N slots, K steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trajlm.core.protocols import Observation
from trajlm.core.spec import Box, DictSpace, Discrete, MultiDiscrete, Space, leaves

ROOT = "observations"


def empty_window(space: Space, num_envs: int, *, length: int, device: torch.device) -> Tensor:
    """Zeros (N, K, ...) of a space's entries: floats for a Box, integers for others."""
    assert not isinstance(space, DictSpace)
    dtype = torch.float32 if isinstance(space, Box) else torch.int64
    return torch.zeros((num_envs, length, *space.shape), dtype=dtype, device=device)


def empty_windows(
    space: Space, num_envs: int, *, length: int, device: torch.device
) -> dict[str, Tensor]:
    """A window for each leaf of the observation, by column name."""
    return {
        name: empty_window(leaf, num_envs, length=length, device=device)
        for name, leaf in leaves(space, ROOT).items()
    }


def append(window: Tensor, entry: Tensor) -> Tensor:
    """(N, K, ...) without its oldest entry and with the newest (N, ...)."""
    return torch.cat([window[:, 1:], entry[:, None].to(window.dtype)], dim=1)


def put_last(window: Tensor, entry: Tensor) -> Tensor:
    """(N, K, ...) with its last entry replaced by (N, ...)."""
    return torch.cat([window[:, :-1], entry[:, None].to(window.dtype)], dim=1)


def append_observation(
    windows: Mapping[str, Tensor], observation: Observation
) -> dict[str, Tensor]:
    """Each leaf's window with the newest observation appended."""
    if not isinstance(observation, Mapping):
        observation = {"": observation}
    appended = {}
    for leaf, entry in observation.items():
        name = f"{ROOT}/{leaf}" if leaf else ROOT
        window = windows[name]
        appended[name] = append(window, torch.as_tensor(np.asarray(entry), device=window.device))
    return appended


def newest(windows: Mapping[str, Tensor], length: int) -> Tensor | dict[str, Tensor]:
    """The last `length` steps (N, L, ...), or by leaf name for a Dict space."""
    if ROOT in windows:
        return windows[ROOT][:, -length:]
    return {name.partition("/")[2]: window[:, -length:] for name, window in windows.items()}


def action_dtype(space: Space) -> np.dtype:
    """The environment's type of an action's entries."""
    assert isinstance(space, Box | Discrete | MultiDiscrete)
    return np.dtype(space.dtype)
