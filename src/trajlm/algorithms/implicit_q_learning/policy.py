"""Acting: the state's likeliest action, or a drawn one, for many slots at once."""

from __future__ import annotations

from functools import partial

from trajlm.algorithms.implicit_q_learning.config import PolicyConfig
from trajlm.nn.frames import frame_policy

policy_of = partial(
    frame_policy, PolicyConfig, refusal="implicit Q-learning takes no guide; it is one"
)
