"""Acting: the newest frames through the network, for many slots at once."""

from __future__ import annotations

from functools import partial

from trajlm.algorithms.percent_behavior_cloning.config import PolicyConfig
from trajlm.nn.frames import frame_policy

policy_of = partial(frame_policy, PolicyConfig, refusal="behaviour cloning takes no guide")
