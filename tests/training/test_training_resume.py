"""A recipe's run, cut and resumed, is bit for bit the uninterrupted one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trajlm.core.config import from_mapping
from trajlm.core.discovery import find_recipe
from trajlm.core.errors import CheckpointError, UsageError
from trajlm.data.sources.synthetic import synthetic
from trajlm.sequence.loader import Loader, validation_batches
from trajlm.training.checkpoint import load_artefact, save_artefact
from trajlm.training.config import TrainingConfig
from trajlm.training.folder import read_folder, write_folder
from trajlm.training.trainer import Trainer, seed_generators

RECIPES = ["decision_transformer/debug", "behavior_cloning/debug"]
PLANNER = "trajectory_transformer/debug"
PHASES = "implicit_q_learning/debug"


def trainer_of(recipe: str, folder: Path, *, data_seed: int = 0, **facts) -> Trainer:
    entry, mapping = find_recipe(recipe)
    model = {**mapping.get("model", {}), **facts.pop("model", {})}
    config = from_mapping(entry.config_module.Config, model)
    training = from_mapping(TrainingConfig, mapping["training"])
    clocks = {"log_every": 5, "evaluate_every": facts.pop("evaluate_every", 0)}
    training = replace(training, tensorboard=False, steps=facts.pop("steps", 30), **clocks)
    if training.schedule == "cosine":  # which then does not depend on the number of steps
        training = replace(training, decay_steps=facts.pop("decay_steps", 20))
    assert config.dropout > 0
    assert training.warmup_steps == 5
    algorithm = entry.algorithm_class
    store = synthetic("box", episodes=12, seed=data_seed)
    prepared = algorithm.prepare(config, store)
    request = algorithm.windows(config, prepared.store.spec)
    seed_generators(facts.pop("build_seed", 0), torch.device("cpu"))
    return Trainer(
        algorithm.build(config, store.spec, prepared.fitted),
        config=training,
        loader=Loader(prepared.store, request, batch_size=training.batch_size, seed=0),
        validation=lambda: validation_batches(prepared.store, request, batch_size=16),
        folder=folder,
        seed=0,
        **facts,
    )


# Before, at and after the end of the warm-up (5), an evaluation (10) and a checkpoint (15).
MOMENTS = [4, 5, 6, 9, 10, 11, 14, 15, 16, 22]


def draws_numbers(step: int) -> dict[str, float]:
    """An evaluation that uses torch's generator, as a policy may."""
    return {"score": float(torch.rand(step).mean())}


@pytest.mark.parametrize(
    ("recipe", "stop"),
    [
        *((recipe, stop) for recipe in RECIPES for stop in MOMENTS),
        *((recipe, stop) for recipe in (PLANNER, PHASES) for stop in (5, 22)),
    ],
)
def test_resumed_equals_uninterrupted(tmp_path, recipe, stop):
    facts = {"on_evaluate": draws_numbers, "evaluate_every": 10}
    trainer_of(recipe, tmp_path / "whole", **facts).run()
    trainer_of(recipe, tmp_path / "cut", steps=stop, **facts).run()
    trainer_of(recipe, tmp_path / "cut", build_seed=1, resume=True, **facts).run()
    manifests = [
        json.loads((tmp_path / name / "checkpoints/last/manifest.json").read_text())["files"]
        for name in ("whole", "cut")
    ]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert manifests[0][file] == manifests[1][file]
    assert validation_losses(tmp_path / "cut")[-1] == validation_losses(tmp_path / "whole")[-1]


def validation_losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["validation/loss"] for line in lines if "validation/loss" in line]


def test_a_cosine_over_all_steps_does_not_go_on_with_more_of_them(tmp_path):
    trainer_of(PLANNER, tmp_path, steps=2, decay_steps=None).run()
    with pytest.raises(UsageError, match=r"training\.steps \(was 2, now 3\)"):
        trainer_of(PLANNER, tmp_path, steps=3, decay_steps=None, resume=True).run()


def test_resuming_on_other_data_is_refused(tmp_path):
    trainer_of(RECIPES[0], tmp_path, steps=2).run()
    with pytest.raises(CheckpointError, match=r"spec\.data_hash"):
        trainer_of(RECIPES[0], tmp_path, data_seed=1, resume=True).run()


def test_a_spec_that_asks_for_too_much_memory_is_refused_at_once(tmp_path):
    """A timestep table of 10^11 rows is 12 TB; nothing of it is allocated."""
    model = trainer_of(RECIPES[0], tmp_path / "run").model
    model.spec = replace(model.spec, horizon=10**11)
    save_artefact(model, tmp_path / "artefact")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: misfit tensors.*100000000000"):
        load_artefact(tmp_path / "artefact")


def test_another_number_of_threads_is_allowed_and_said(tmp_path, caplog):
    trainer_of(RECIPES[0], tmp_path, steps=2).run()
    folder = tmp_path / "checkpoints/step-00000002"
    files = read_folder(folder)
    state = json.loads(files["trainer.json"])
    state["machine"]["threads"] += 1
    state["machine"]["versions"]["torch"] = "2.10.0"
    shutil.rmtree(folder)
    write_folder(folder, {**files, "trainer.json": json.dumps(state).encode()})
    trainer_of(RECIPES[0], tmp_path, steps=4, resume=True).run()
    warning = next(r.message for r in caplog.records if "not bit-exact" in r.message)
    assert "threads" in warning
    assert "2.10.0" in warning


def test_another_architecture_is_refused_by_its_keys(tmp_path):
    trainer_of(RECIPES[0], tmp_path, steps=2).run()
    with pytest.raises(CheckpointError, match=r"config\.num_layers, config\.width"):
        trainer_of(RECIPES[0], tmp_path, resume=True, model={"width": 16, "num_layers": 1}).run()
