"""Behaviour cloning: the network of `nn.frames`, fitted to every action in the data.

Each step of an episode is learned from with its last K observations; the published code drops the
steps that have fewer, of which there are none with one frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.algorithms.behavior_cloning.config import Config, PolicyConfig
from trajlm.algorithms.behavior_cloning.policy import policy_of
from trajlm.core.protocols import Critic
from trajlm.core.spec import DataSpec, leaves
from trajlm.data.statistics import fitted_statistics
from trajlm.data.store import TrajectoryStore
from trajlm.nn.frames import FrameNetwork, FramePolicy
from trajlm.sequence.batch import SequenceBatch, WindowRequest


class Model(Algorithm):
    """pi(a_t | s_{t-K+1..t})."""

    def __init__(self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, spec)
        self.network = FrameNetwork(
            spec,
            frames=config.frames,
            width=config.width,
            num_layers=config.num_layers,
            dropout=config.dropout,
            fitted=fitted,
        )

    @classmethod
    def prepare(cls, config: Config, store: TrajectoryStore) -> Prepared:
        """Drops unfinished episodes, fits state statistics."""
        store = store.finished
        return Prepared(store=store, fitted=fitted_statistics(store))

    @classmethod
    def build(cls, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        return cls(config, spec, fitted)

    @classmethod
    def windows(cls, config: Config, spec: DataSpec) -> WindowRequest:
        observations = tuple(leaves(spec.observation, "observations"))
        return WindowRequest(length=config.frames, columns=(*observations, "actions"))

    def forward(self, batch: SequenceBatch) -> Loss:
        """The head's error of the recorded actions: squared, or cross-entropy where discrete."""
        loss = self.network.loss(
            batch.observations, batch.actions, mask=batch.mask, timesteps=batch.timesteps
        )
        return Loss(loss, {"loss": loss.detach()})

    def policy(
        self, config: PolicyConfig | None = None, *, guide: Critic | None = None, **overrides: Any
    ) -> FramePolicy:
        """Acts with this model. `overrides` are fields of `PolicyConfig`."""
        return policy_of(self.eval().network, config, guide=guide, overrides=overrides)
