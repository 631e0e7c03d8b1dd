"""The loop: resuming is exact, divergence stops it, clocks are kept, folders are respected."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch

from trajlm.core.errors import CheckpointError, DivergedError, StorageError, UsageError
from trajlm.training.checkpoint import artefact_files, load_artefact
from trajlm.training.config import TrainingConfig
from trajlm.training.precision import choose_precision
from trajlm.training.state import check_state, trainer_state


@pytest.fixture
def toy():
    import toy_run

    return toy_run


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def optimizer_bytes(folder, step):
    return (folder / f"checkpoints/step-{step:08d}/optimizer.safetensors").read_bytes()


def test_training_lowers_the_loss(toy, tmp_path):
    result = toy.toy_trainer(tmp_path, steps=120).run()
    found = [line["train/loss"] for line in lines(tmp_path)]
    assert found[-1] < found[0] / 2
    assert result.step == 120
    assert result.stopped_by == "steps"
    assert result.updates_per_s > 0
    assert result.metrics["train/loss"] == found[-1]


@pytest.mark.parametrize("stop", [7, 20])
def test_resumed_equals_uninterrupted_bit_for_bit(toy, tmp_path, stop):
    whole, first, second = toy.toy_model(), toy.toy_model(), toy.toy_model(seed=9)
    facts = {"validation": lambda: [toy.ToyLoader().batch(1000)], "validation_every": 4}
    toy.toy_trainer(tmp_path / "whole", model=whole, **facts).run()
    toy.toy_trainer(tmp_path / "cut", model=first, **facts, steps=stop).run()
    assert not same(weights(first), weights(whole))
    toy.toy_trainer(tmp_path / "cut", model=second, **facts, resume=True).run()
    assert same(weights(second), weights(whole))
    assert optimizer_bytes(tmp_path / "cut", 30) == optimizer_bytes(tmp_path / "whole", 30)
    ours, theirs = lines(tmp_path / "cut"), lines(tmp_path / "whole")
    last = {"step", "train/learning_rate", "validation/loss"}
    assert [{k: line[k] for k in last & line.keys()} for line in ours[-2:]] == [
        {k: line[k] for k in last & line.keys()} for line in theirs[-2:]
    ]


def test_dropout_depends_on_the_step(toy, tmp_path):
    """Else the test above would pass with one mask for ever."""
    trainer = toy.toy_trainer(tmp_path)
    batch = toy.ToyLoader().batch(0)
    losses = [trainer._gradient(batch, step)[0].value.item() for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_update_equals_plain_torch(toy, tmp_path):
    """Clipping inside the fused step, decay and schedule against the textbook loop."""
    model, reference = toy.toy_model(), toy.toy_model()
    model.eval(), reference.eval()
    trainer = toy.toy_trainer(
        tmp_path, model=model, gradient_clip=0.05, weight_decay=0.1, warmup_steps=4
    )
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(6):
        trainer._update(step)
        optimizer.zero_grad()
        reference(toy.ToyLoader().batch(step)).value.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
        optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 4)
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, reference.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_metrics_lines_hold_means_and_whole_steps(toy, tmp_path):
    calls = []
    trainer = toy.toy_trainer(
        tmp_path,
        steps=12,
        validation=lambda: [toy.ToyLoader().batch(s) for s in (500, 501)],
        validation_every=6,
        evaluate_every=10,
        on_evaluate=lambda step: calls.append(step) or {"score": step},
    )
    losses = []
    check = trainer.guard.watch
    trainer.guard.watch = lambda step, *v: losses.append(v[0].item()) or check(step, *v)
    trainer.run()
    found = lines(tmp_path)
    logged = {line["step"]: line for line in found if "train/loss" in line}
    assert list(logged) == [5, 10, 12]
    assert logged[10]["train/loss"] == pytest.approx(sum(losses[5:10]) / 5, rel=1e-5)
    for name in ("train/learning_rate", "train/gradient_norm", "train/largest_error"):
        assert logged[5][name] > 0
    assert logged[5]["perf/updates_per_s"] > 0
    assert [line["step"] for line in found if "validation/loss" in line] == [6, 12]
    assert calls == [10, 12]
    assert [line["evaluation/score"] for line in found if "evaluation/score" in line] == [10, 12]
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


def test_resume_truncates_metrics_after_the_checkpoint(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "time": 9.0, "train/loss": 7.0}\n{"step": 20, "ti')
    toy.toy_trainer(tmp_path, steps=20, resume=True).run()
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 15, 20]
    assert lines(tmp_path)[2]["train/loss"] != 7.0


@pytest.mark.parametrize("deferred", [False, True])
def test_divergence_stops_before_the_update(toy, tmp_path, deferred):
    trainer = toy.toy_trainer(tmp_path, loader=toy.ToyLoader(bad_step=17))
    if deferred:  # as on a GPU: the flag is read at the next line of the log, three updates on
        trainer.device = type("Elsewhere", (), {"type": "elsewhere", "__str__": lambda s: "cpu"})()
        trainer.loader.batch = lambda step, load=trainer.loader.batch: Stay(load(step))
    with pytest.raises(DivergedError, match=r"update 17: loss nan.*checkpoint is of update 10"):
        trainer.run()
    facts = json.loads((tmp_path / "diverged.json").read_text())
    assert facts["step"] == 17
    assert facts["columns_not_finite"] == ["observations", "actions"]
    assert facts["weights_not_finite"] == []
    assert "hidden.weight" in facts["gradients_not_finite"]
    assert trainer.archive.steps == [10]
    # The weights are those of 17 good updates.
    good = toy.toy_model()
    toy.toy_trainer(tmp_path / "good", model=good, steps=17).run()
    assert same(weights(trainer.model), weights(good))


class Stay:
    """A batch that `.to()` leaves where it is."""

    def __init__(self, batch):
        self.batch = batch

    def to(self, _device):
        return self.batch


def test_best_follows_the_held_out_loss(toy, tmp_path, monkeypatch):
    values = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(
        "trajlm.training.trainer.held_out_metrics",
        lambda model, batches, **_: {"loss": next(values)},
    )
    trainer = toy.toy_trainer(tmp_path, validation=list, validation_every=10, keep_last=1)
    result = trainer.run()
    assert result.best_step == 20
    assert trainer.archive.steps == [20, 30]
    assert (tmp_path / "checkpoints/best").resolve().name == "step-00000020"
    assert (tmp_path / "checkpoints/last").resolve().name == "step-00000030"


def test_best_follows_the_score_where_policies_are_evaluated(toy, tmp_path):
    scores = {10: 1.0, 20: 5.0, 30: math.nan}
    trainer = toy.toy_trainer(
        tmp_path, evaluate_every=10, on_evaluate=lambda step: {"score": scores[step]}
    )
    assert trainer.run().best_step == 20
    assert lines(tmp_path)[-1]["evaluation/score"] is None


def test_an_evaluation_that_was_cut_short_is_made_on_resuming(toy, tmp_path):
    def killed(step):
        raise MemoryError

    trainer = toy.toy_trainer(tmp_path, evaluate_every=10, on_evaluate=killed)
    with pytest.raises(MemoryError):
        trainer.run()
    calls = []
    toy.toy_trainer(
        tmp_path,
        evaluate_every=10,
        resume=True,
        on_evaluate=lambda step: calls.append(step) or {"score": 1.0},
    ).run()
    assert calls == [10, 20, 30]


def test_model_evaluates_without_dropout_and_trains_with_it(toy, tmp_path):
    modes = []
    model = toy.toy_model()
    trainer = toy.toy_trainer(
        tmp_path,
        steps=2,
        model=model,
        evaluate_every=1,
        on_evaluate=lambda step: modes.append(model.training) or {},
    )
    model.register_forward_hook(lambda m, *_: modes.append(m.training))
    trainer.run()
    assert modes == [True, False, True, False]


def test_time_limit_ends_a_run_whole(toy, tmp_path):
    trainer = toy.toy_trainer(tmp_path, loader=toy.ToyLoader(delay=0.02), time_limit=0.1)
    result = trainer.run()
    assert result.stopped_by == "time_limit"
    assert 1 <= result.step < 30
    assert trainer.archive.steps[-1] == result.step


def test_a_folder_with_a_run_is_refused(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match="--resume"):
        toy.toy_trainer(tmp_path, steps=10).run()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_refused(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        toy.toy_trainer(tmp_path / "file" / "run").run()


def test_resuming_another_model_or_other_data_lists_the_keys(toy, tmp_path):
    toy.toy_trainer(tmp_path, steps=10).run()
    with pytest.raises(CheckpointError, match=r"config\.width"):
        toy.toy_trainer(tmp_path, model=toy.toy_model(width=8), resume=True).run()


def test_resuming_with_other_settings(toy, tmp_path, caplog):
    toy.toy_trainer(tmp_path, steps=10).run()
    with pytest.raises(UsageError, match=r"learning_rate \(was 0.01, now 0.02\).*seed"):
        toy.toy_trainer(tmp_path, resume=True, learning_rate=0.02, seed=3).run()
    with caplog.at_level(logging.WARNING):
        toy.toy_trainer(
            tmp_path, steps=20, resume=True, learning_rate=0.02, allow_changes=True
        ).run()
    assert "not bit-exact: training.learning_rate" in caplog.text


def test_a_setting_that_the_run_did_not_know_was_at_its_default(tmp_path):
    """A run of an earlier version goes on; asked for another value it does not."""

    def state(**settings):
        config = TrainingConfig(**settings)
        precision = choose_precision("float32")
        return trainer_state(
            7, seed=0, config=config, precision=precision, device=torch.device("cpu")
        )

    before = state()
    del before["training"]["early_share"]
    told = {"where": tmp_path, "allow_changes": False}
    assert check_state(before, state(), **told) == 7
    with pytest.raises(UsageError, match=r"early_share \(was 0.0, now 0.5\)"):
        check_state(before, state(early_share=0.5), **told)


def test_another_thread_count_is_warned_of(toy, tmp_path, caplog):
    toy.toy_trainer(tmp_path, steps=10).run()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        toy.toy_trainer(tmp_path, steps=20, resume=True).run()
    finally:
        torch.set_num_threads(threads)
    assert f"threads (was {threads})" in caplog.text


def test_fallback_to_an_older_checkpoint(toy, tmp_path, caplog):
    whole = toy.toy_model()
    toy.toy_trainer(tmp_path / "whole", model=whole).run()
    toy.toy_trainer(tmp_path / "run", steps=20).run()
    weights_file = tmp_path / "run/checkpoints/last/model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-50])
    model = toy.toy_model()
    toy.toy_trainer(tmp_path / "run", model=model, resume=True).run()
    assert "model.safetensors: damaged" in caplog.text
    assert "falling back to" in caplog.text
    assert same(weights(model), weights(whole))


def test_resume_with_nothing_to_resume_from_starts_afresh(toy, tmp_path, caplog):
    assert toy.toy_trainer(tmp_path, steps=10, resume=True).run().step == 10
    assert "no checkpoint to resume from" in caplog.text


def test_a_plain_line_on_no_terminal(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "trajlm.training.clocks.time.monotonic", iter(range(0, 100000, 20)).__next__
    )
    toy.toy_trainer(tmp_path, steps=10).run()
    error = capsys.readouterr().err
    assert "train 7/10  loss" in error
    assert "updates/s" in error
    assert "left" in error


def test_the_trained_model_is_what_is_loaded(toy, tmp_path):
    trainer = toy.toy_trainer(tmp_path, steps=10)
    trainer.run()
    loaded = load_artefact(tmp_path)
    assert same(weights(loaded), weights(trainer.model))
    assert not loaded.training
    assert artefact_files(loaded) == artefact_files(trainer.model)
