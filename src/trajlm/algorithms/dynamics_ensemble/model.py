"""The ensemble of Chua et al. 2018: Gaussians of the next state's change and the reward.

Each member is a feed-forward network from a normalised observation and action to the mean and the
log-variance of the normalised change and reward. The log-variance lies softly between two bounds a
dimension, which are learned and shared by the members (Chua et al. 2018, appendix A.1).

Deliberate difference: all members learn from the same batches and differ in their first weights,
instead of each from a bootstrap of the data. Lakshminarayanan et al. 2017 (arXiv 1612.01474) found
that enough, and better than leaving a third of the data out of each.

Legend: B batch, E members, O observation entries, P = O + 1 predicted entries, F input entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.algorithms.dynamics_ensemble.config import Config, PolicyConfig
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic
from trajlm.core.spec import Box, DataSpec, Space, leaves
from trajlm.data.statistics import column_statistics
from trajlm.data.store import Segment, TrajectoryStore
from trajlm.nn.features import features
from trajlm.nn.losses import masked_mean
from trajlm.nn.normalizer import Normalizer
from trajlm.sequence.batch import SequenceBatch, WindowRequest

if TYPE_CHECKING:
    from trajlm.algorithms.dynamics_ensemble.policy import EnsembleWorld

MOST_ENTRIES = 1024
LOG_VARIANCE = (-10.0, 0.5)
"""Where the learned bounds begin, as published."""


class Model(Algorithm):
    """See the module's docstring. Buffers: statistics of observations, actions and targets."""

    config: Config
    acts = False

    def __init__(self, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, spec)
        size = observed_entries(config, spec.observation)
        self.observations, self.targets = Normalizer(size), Normalizer(size + 1)
        self.observations.fit(_first(fitted, "observations", size), "observations")
        self.targets.fit(fitted, "targets")
        self.actions = features(spec.action, name="actions", fitted=fitted)
        sizes = [size + self.actions.size, *([config.width] * (config.num_layers - 1))]
        self.members = nn.ModuleList(
            [_member(sizes, 2 * (size + 1)) for _ in range(config.members)]
        )
        self.lowest = nn.Parameter(torch.full((size + 1,), LOG_VARIANCE[0]))
        self.highest = nn.Parameter(torch.full((size + 1,), LOG_VARIANCE[1]))

    @property
    def observation_size(self) -> int:
        """O: the entries that are seen and predicted."""
        return len(self.observations.mean)

    @classmethod
    def prepare(cls, config: Config, store: TrajectoryStore) -> Prepared:
        """Adds `targets` (M, O+1), what each step changes and earns, and `known` (M,), 0 for a last
        step whose next observation was not recorded; fits the statistics of all columns."""
        size = observed_entries(config, store.observation_space)
        pairs = [step_targets(segment, size) for segment in store.segments]
        store = store.with_column("targets", [targets for targets, _ in pairs])
        store = store.with_column("known", [known for _, known in pairs])
        fitted: dict[str, np.ndarray] = {}
        real = [
            name for name, leaf in leaves(store.action_space, "actions").items() if _is_real(leaf)
        ]
        for name in ("observations", "targets", *real):
            statistics = column_statistics(store, name)
            fitted |= {f"{name}/mean": statistics.mean, f"{name}/std": statistics.std}
        return Prepared(store=store, fitted=fitted)

    @classmethod
    def build(cls, config: Config, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        return cls(config, spec, fitted)

    @classmethod
    def windows(cls, config: Config, spec: DataSpec) -> WindowRequest:
        actions = tuple(leaves(spec.action, "actions"))
        return WindowRequest(length=1, columns=("observations", *actions, "targets", "known"))

    def forward(self, batch: SequenceBatch) -> Loss:
        """The mean over members of the negative log-likelihood of the normalised targets, in nats a
        dimension (Chua et al. 2018, equation 1); in training with the term of the bounds."""
        observations = batch.columns["observations"].flatten(2)[..., : self.observation_size]
        targets = self.targets(batch.columns["targets"])[:, 0]  # (B, P)
        counted = (batch.mask & batch.columns["known"].bool())[:, 0]
        inputs = self.inputs(observations, self._actions_of(batch))[:, 0]
        nats, errors = [], []
        for member in range(self.config.members):
            mean, log_variance = self.gaussian(member, inputs)
            squared = (targets - mean).square()
            likelihood = squared * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)
            nats.append(masked_mean(likelihood.mean(-1) / 2, counted))
            errors.append(masked_mean(squared.mean(-1), counted).detach())
        value = torch.stack(nats).mean()
        metrics = {"nats": value.detach(), "squared_error": torch.stack(errors).mean()}
        if self.training:
            apart = (self.highest - self.lowest).sum()
            value = value + self.config.bound_weight / (2 * self.config.members) * apart
        return Loss(value, {"loss": value.detach(), **metrics})

    def inputs(self, observations: Tensor, actions: Any) -> Tensor:
        """What members read: raw observations (B, T, O) and actions (B, T, ...) -> (B, T, F)."""
        return torch.cat([self.observations(observations.float()), self.actions(actions)], dim=-1)

    def gaussian(self, member: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, P) of one member's normalised targets; inputs (B, F)."""
        mean, raw = self.members[member](inputs).chunk(2, dim=-1)
        log_variance = self.highest - functional.softplus(self.highest - raw)
        return mean, self.lowest + functional.softplus(log_variance - self.lowest)

    def _actions_of(self, batch: SequenceBatch) -> Any:
        if "actions" in batch.columns:
            return batch.columns["actions"]
        prefix = "actions/"
        return {n[len(prefix) :]: c for n, c in batch.columns.items() if n.startswith(prefix)}

    def policy(
        self, config: PolicyConfig | None = None, *, guide: Critic | None = None, **overrides: Any
    ) -> NoReturn:
        """Raises `UsageError`: there is none."""
        raise UsageError(
            "dynamics_ensemble predicts states and does not act, so it has no policy and no score; "
            "model.world_model() predicts, and trajlm reproduce long-horizon compares predictions"
        )

    def world_model(self, *, context: int | None = None) -> EnsembleWorld:
        """Predicts with this model, from the present observation alone."""
        from trajlm.algorithms.dynamics_ensemble.policy import EnsembleWorld

        if context not in (None, 1):
            raise UsageError(f"context: {context}; a single-step model sees the present alone, 1")
        return EnsembleWorld(self.eval())


def _is_real(space: Space) -> TypeGuard[Box]:
    return isinstance(space, Box) and np.issubdtype(np.dtype(space.dtype), np.floating)


def observed_entries(config: Config, space: Space) -> int:
    """O. Raises `UsageError` for observations that are not one real vector, or too long a one."""
    if not _is_real(space):
        raise UsageError(
            f"observations: {type(space).__name__} of this dtype; a Gaussian predicts real vectors"
        )
    kept = space.size if config.observation_size is None else config.observation_size
    if not 1 <= kept <= min(space.size, MOST_ENTRIES):
        raise UsageError(f"observation_size: {kept} is not in 1..{min(space.size, MOST_ENTRIES)}")
    return int(kept)


def step_targets(segment: Segment, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of all steps of a segment what they change and earn (M, size + 1), and whether the next
    observation is known (M,) uint8."""
    rows = np.asarray(segment.columns["observations"])
    rows = rows.reshape(len(rows), -1)[:, :size].astype(np.float64)
    lengths = segment.lengths
    steps = np.arange(int(lengths.sum()))
    known = np.ones(len(steps), np.uint8)
    if segment.has_last_observation:
        steps = steps + np.repeat(np.arange(len(lengths)), lengths)
    else:
        known[segment.offsets[1:][lengths > 0] - 1] = 0
    after = np.where(known, steps + 1, steps)
    targets = np.empty((len(steps), size + 1), np.float32)
    targets[:, :size] = rows[after] - rows[steps]
    targets[:, size] = segment.columns["rewards"]
    return targets, known


def _member(sizes: list[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(size_in, size_out), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def _first(fitted: Mapping[str, np.ndarray], name: str, size: int) -> dict[str, np.ndarray]:
    """The statistics of a column's first `size` entries."""
    named = [f"{name}/mean", f"{name}/std"]
    return {key: np.ravel(fitted[key])[:size] for key in named if key in fitted}
