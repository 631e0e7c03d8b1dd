"""A small network that predicts actions from observations, to try training on."""

from __future__ import annotations

import torch
from torch import nn

from toy_algorithm.config import Config
from trajlm.algorithms.base import Algorithm, Loss, Prepared
from trajlm.core.protocols import Policy
from trajlm.core.spec import DataSpec
from trajlm.sequence.batch import SequenceBatch, WindowRequest


class Model(Algorithm):
    def __init__(self, config: Config, spec: DataSpec, mean: torch.Tensor) -> None:
        super().__init__(config, spec)
        self.register_buffer("mean", mean)
        self.register_buffer("low", torch.full((3,), -torch.inf))
        self.hidden = nn.Linear(4, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, 2)
        self.unused = nn.Linear(2, 2)
        self.poison = False

    @classmethod
    def prepare(cls, config, store) -> Prepared:
        return Prepared(store=store)

    @classmethod
    def build(cls, config, spec, fitted) -> Model:
        return cls(config, spec, torch.as_tensor(fitted.get("mean", [0.0] * 4)))

    @classmethod
    def windows(cls, config, spec) -> WindowRequest:
        return WindowRequest(length=3, columns=("observations", "actions"))

    def forward(self, batch: SequenceBatch) -> Loss:
        hidden = torch.relu(self.hidden(batch.observations - self.mean))
        error = (self.head(self.dropout(hidden)) - batch.actions).square().mean(-1)
        value = error[batch.mask].mean()
        return Loss(value=value, metrics={"largest_error": error.detach().max()})

    def policy(self, config=None, *, guide=None, **overrides) -> Policy:
        raise NotImplementedError
