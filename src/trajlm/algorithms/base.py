"""The whole contract of an algorithm.

An algorithm is a folder with `config.py` (torch-free: `Config`, `PolicyConfig`), `model.py` (the
class `Model`, an `Algorithm`), `policy.py`, `recipes.yaml` and `README.md`. It is found by its
folder or by an entry point; adding one edits no existing file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from torch import Tensor, nn

from trajlm.core.errors import UsageError
from trajlm.core.protocols import Critic, Policy, WorldModel
from trajlm.core.spec import DataSpec
from trajlm.data.store import TrajectoryStore
from trajlm.sequence.batch import SequenceBatch, WindowRequest


class Loss(NamedTuple):
    """`value`: the scalar to minimise. `metrics`: detached scalars to log."""

    value: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A dataset made ready: the store with added columns, and the arrays fitted on it."""

    store: TrajectoryStore
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One objective of an update, with an optimiser, a clipping and a learning rate of its own.

    `name`: what `forward(batch, phase=name)` is called with; "" is `forward(batch)`. `modules`: the
    model's attributes whose parameters it moves; () is all of them. `schedule`: of its rate, where
    it is not that of the training.
    """

    name: str = ""
    modules: tuple[str, ...] = ()
    schedule: Literal["constant", "cosine"] | None = None


class Algorithm(nn.Module, ABC):
    """A model with its loss, its preparation of data and its policy.

    `config` is the algorithm's frozen `Config`; `spec` the facts of the data it was built for.
    Whatever is fitted on data is a buffer: it moves with `.to()` and saves with the weights.
    `acts`: False for a model without a policy, such as one of dynamics; it is trained and never scored.
    """

    acts: ClassVar[bool] = True

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @classmethod
    @abstractmethod
    def prepare(cls, config: Any, store: TrajectoryStore) -> Prepared:
        """Add columns and fit statistics; pure."""

    @classmethod
    def prepare_held_out(
        cls, config: Any, store: TrajectoryStore, fitted: Mapping[str, np.ndarray]
    ) -> TrajectoryStore:
        """Episodes that are not trained on, made ready with what was `fitted` on those that are.

        By default as `prepare` does, which suits an algorithm whose columns depend on no fit and
        which keeps every episode.
        """
        return cls.prepare(config, store).store

    @classmethod
    @abstractmethod
    def build(cls, config: Any, spec: DataSpec, fitted: Mapping[str, np.ndarray]) -> Self:
        """A fresh model. `fitted` may be empty: a checkpoint's buffers then fill it."""

    @classmethod
    @abstractmethod
    def windows(cls, config: Any, spec: DataSpec) -> WindowRequest:
        """The windows that `forward` is fed."""

    @property
    def published_schedule(self) -> bool:
        """Whether the learning rate follows the Trajectory Transformer's published code, which sets
        it after each update and lets its cosine rise again."""
        return False

    def phases(self) -> tuple[Phase, ...]:
        """The objectives of one update, in their order; one for the whole model by default.

        Where there are several, each trained parameter belongs to one of them, `forward` takes
        `phase`, a phase's name, and without it gives the sum of all: what is validated.
        """
        return (Phase(),)

    def after_update(self) -> None:
        """What follows the weights moves here, such as a target network; without gradients."""

    @abstractmethod
    def forward(self, batch: SequenceBatch) -> Loss:
        """The loss of a batch."""

    @abstractmethod
    def policy(
        self, config: Any = None, *, guide: Critic | None = None, **overrides: Any
    ) -> Policy:
        """A policy that acts with this model.

        `config` is the algorithm's `PolicyConfig` (its defaults where None); `overrides` are
        single fields of it: `model.policy(target_return=3600)`. Raises `UsageError` where the
        model does not act.
        """

    def world_model(self, *, context: int | None = None) -> WorldModel:
        """Predicts states with this model, seeing `context` observations of the past, or as many as
        it was trained with. Raises `UsageError` where the model predicts none."""
        raise UsageError(f"{type(self).__module__}: this model predicts no states")

    def critic(self) -> Critic | None:
        """What can guide another model's plans, in the units of the data's rewards; None by default."""
        return None

    def flops_per_step(self, batch_size: int) -> float:
        """Floating-point operations of one training update: 6 a parameter and token by default."""
        request = self.windows(self.config, self.spec)
        return 6.0 * sum(p.numel() for p in self.parameters()) * batch_size * request.length
