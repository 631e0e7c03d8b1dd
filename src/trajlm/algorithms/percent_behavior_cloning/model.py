"""%BC: the network of `nn.frames`, fitted to the actions of the best episodes.

As published, episodes are taken by return, best first, while their steps together are at most the
share asked for (one episode at least), and the statistics that states are normalised by are those
of all the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.algorithms.percent_behavior_cloning.config import Config, PolicyConfig
from trajlm.algorithms.percent_behavior_cloning.policy import policy_of
from trajlm.core.protocols import Critic
from trajlm.core.spec import DataSpec, leaves
from trajlm.data.statistics import fitted_statistics
from trajlm.data.store import TrajectoryStore
from trajlm.nn.frames import FrameNetwork, FramePolicy
from trajlm.sequence.batch import SequenceBatch, WindowRequest


class Model(Algorithm):
    """pi(a_t | s_{t-K+1..t}) of the best episodes."""

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
        """Keeps the best episodes; state statistics are fitted on all finished ones."""
        store = store.finished
        return Prepared(store=store.best(config.fraction), fitted=fitted_statistics(store))

    @classmethod
    def prepare_held_out(
        cls, config: Config, store: TrajectoryStore, fitted: Mapping[str, np.ndarray]
    ) -> TrajectoryStore:
        """Every held-out episode, good or bad: the loss stands beside that of other methods."""
        return store.finished

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
