"""An algorithm of several phases: resumed like any other; each phase has its own clip and rate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from trajlm.algorithms.base import Algorithm, Phase
from trajlm.core.errors import DivergedError
from trajlm.core.seeding import derive
from trajlm.training.config import TrainingConfig
from trajlm.training.objective import objectives_of
from trajlm.training.optim import learning_rate
from trajlm.training.trainer import BatchSource, Trainer

CONFIG = TrainingConfig(
    steps=8, batch_size=8, learning_rate=0.01, warmup_steps=2, schedule="cosine", final_rate=0.0,
    weight_decay=0.0, gradient_clip=0.5, log_every=1, validation_every=0, checkpoint_every=4,
    tensorboard=False, precision="float32",
)  # fmt: skip


PHASES = (
    Phase(name="steep", modules=("steep",)),
    Phase(name="flat", modules=("flat",), schedule="constant"),
)


def two_phases(phases: tuple[Phase, ...] = PHASES) -> Algorithm:
    from toy_phases.config import Config
    from toy_phases.model import Model
    from toy_run import SPEC

    torch.manual_seed(0)
    return Model(Config(), SPEC, phases)


def loader() -> BatchSource:
    from toy_run import ToyLoader

    return ToyLoader()


def trained(folder: Path, model: Algorithm) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    Trainer(model, config=CONFIG, loader=loader(), folder=folder, seed=0).run()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def by_hand(model: Algorithm) -> None:
    """The updates as they are meant: each phase after the other, with its own Adam."""
    optimizers = [torch.optim.Adam(part.parameters()) for part in (model.steep, model.flat)]
    for step in range(CONFIG.steps):
        batch = loader().batch(step)
        for number, (phase, optimizer) in enumerate(zip(PHASES, optimizers, strict=True)):
            torch.manual_seed(derive(0, step, number) if number else derive(0, step))
            model.zero_grad()
            model(batch, phase=phase.name).value.backward()
            parameters = optimizer.param_groups[0]["params"]
            nn.utils.clip_grad_norm_(parameters, CONFIG.gradient_clip or math.inf)
            optimizer.param_groups[0]["lr"] = learning_rate(CONFIG, step, schedule=phase.schedule)
            optimizer.step()


def test_an_update_is_its_phases_one_after_another(tmp_path: Path) -> None:
    model, other = two_phases(), two_phases()
    lines = trained(tmp_path, model)
    by_hand(other)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, other.get_parameter(name), rtol=1e-5, atol=1e-7)
    assert model.updates == CONFIG.steps
    for line in lines:
        step = line["step"] - 1
        assert line["train/learning_rate/steep"] == learning_rate(CONFIG, step)
        flat = 0.005 if step == 0 else 0.01
        assert line["train/learning_rate/flat"] == pytest.approx(flat)
        assert line["train/loss"] == pytest.approx(
            line["train/steep_error"] + line["train/flat_error"], rel=1e-5
        )
        norms = [line[f"train/gradient_norm/{phase.name}"] for phase in PHASES]
        assert line["train/gradient_norm"] == pytest.approx(math.hypot(*norms), rel=1e-5)
        assert norms[0] > 0.5 > norms[1]  # one is clipped, the other is not


def test_the_update_of_a_phase_that_is_not_finite_is_held_back_and_named(tmp_path: Path) -> None:
    model = two_phases()
    model.poison = "flat"
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(DivergedError, match="update 0: loss nan"):
        trained(tmp_path, model)
    facts = json.loads((tmp_path / "diverged.json").read_text())
    assert (facts["step"], facts["phase"]) == (0, "flat")
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"steep.weight", "steep.bias"}
    assert model.updates == 0


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (
            (PHASES[0], Phase(name="again", modules=("steep",))),
            r"steep\.weight belongs to 2 phases",
        ),
        ((PHASES[0], replace(PHASES[1], modules=("steep", "flat"))), "belongs to 2 phases"),
    ],
)
def test_every_trained_parameter_belongs_to_one_phase(
    phases: tuple[Phase, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        objectives_of(two_phases(phases), CONFIG)
    model = two_phases((PHASES[0], replace(PHASES[0], name="other", modules=("flat",))))
    model.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"extra\.weight belongs to 0 phases"):
        objectives_of(model, CONFIG)
    model.extra.requires_grad_(False)
    assert [objective.name for objective in objectives_of(model, CONFIG)] == ["steep", "other"]
