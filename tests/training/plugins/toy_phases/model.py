"""`steep` regresses on actions; `flat` on what `steep` says after its own step, and on noise."""

from __future__ import annotations

import math

import torch
from torch import nn

from toy_phases.config import Config
from trajlm.algorithms.base import Algorithm, Loss, Phase, Prepared
from trajlm.core.protocols import Policy
from trajlm.core.spec import DataSpec
from trajlm.sequence.batch import SequenceBatch, WindowRequest

PHASES = (
    Phase(name="steep", modules=("steep",)),
    Phase(name="flat", modules=("flat",), schedule="constant"),
)


class Model(Algorithm):
    def __init__(self, config: Config, spec: DataSpec, phases: tuple[Phase, ...] = PHASES) -> None:
        super().__init__(config, spec)
        self.steep, self.flat = nn.Linear(4, 2), nn.Linear(4, 2)
        self.own_phases, self.updates, self.poison = phases, 0, ""

    def phases(self) -> tuple[Phase, ...]:
        return self.own_phases

    def after_update(self) -> None:
        self.updates += 1

    @classmethod
    def prepare(cls, config, store) -> Prepared:
        return Prepared(store=store)

    @classmethod
    def build(cls, config, spec, fitted) -> Model:
        return cls(config, spec)

    @classmethod
    def windows(cls, config, spec) -> WindowRequest:
        return WindowRequest(length=3, columns=("observations", "actions"))

    def forward(self, batch: SequenceBatch, phase: str | None = None) -> Loss:
        said = self.steep(batch.observations)
        losses = {
            "steep": 50.0 * (said - batch.actions).square().mean(),
            "flat": 0.01 * (self.flat(batch.observations) - said + torch.rand(2)).square().mean(),
        }
        if self.poison:
            losses[self.poison] = losses[self.poison] * math.nan
        value = losses[phase] if phase else torch.stack(list(losses.values())).sum()
        return Loss(value, {f"{phase}_error": value.detach()} if phase else {})

    def policy(self, config=None, *, guide=None, **overrides) -> Policy:
        raise NotImplementedError
