"""Acting: the state's likeliest action, or a drawn one, for many slots at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajlm.algorithms.implicit_q_learning.config import PolicyConfig
from trajlm.core.config import overridden
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic
from trajlm.nn.frames import FrameNetwork, FramePolicy


def policy_of(
    network: FrameNetwork,
    config: PolicyConfig | None,
    *,
    guide: Critic | None,
    overrides: Mapping[str, Any],
) -> FramePolicy:
    """The policy of `network`. Raises `UsageError` for a guide or an unknown override."""
    if guide is not None:
        raise UsageError("implicit Q-learning takes no guide; it is one")
    config = overridden(config or PolicyConfig(), overrides, name="policy")
    return FramePolicy(network, temperature=config.temperature)
