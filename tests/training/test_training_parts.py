"""Configuration, clocks, schedule, precision, lock, the log of metrics and the display."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import subprocess
import sys

import pytest
import torch

from trajlm.core.config import from_mapping, to_mapping
from trajlm.core.discovery import find_recipe
from trajlm.core.errors import StorageError, UsageError
from trajlm.core.spec import Box, DataSpec
from trajlm.training import clocks
from trajlm.training.clocks import EverySeconds, EverySteps, Stopwatch
from trajlm.training.config import TrainingConfig
from trajlm.training.lock import RunLock
from trajlm.training.metrics import Display, MetricsLog, time_left
from trajlm.training.optim import FiniteGuard, learning_rate, make_optimizer
from trajlm.training.precision import choose_precision, native_cpu_bf16


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("log_every", 0),
        ("keep_last", 0),
        ("warmup_steps", -1),
        ("validation_every", -1),
        ("evaluate_every", -1),
        ("checkpoint_every", -1),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("gradient_clip", -1.0),
        ("time_limit", 0.0),
        ("weight_decay", -0.1),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("final_rate", 1.5),
        ("validation_fraction", 1.0),
    ],
)
def test_configuration_names_the_field_first(name, value):
    with pytest.raises(UsageError, match=rf"^{name}: ") as caught:
        TrainingConfig(**{name: value})
    assert caught.value.exit_code == 2
    if value == value:  # the prefix of a nested configuration comes before the field's name
        with pytest.raises(UsageError, match=rf"^training\.{name}: "):
            from_mapping(TrainingConfig, {name: value}, where="training.")


def test_configuration_survives_json():
    config = TrainingConfig(gradient_clip=None, betas=(0.9, 0.95), time_limit=60.0)
    assert from_mapping(TrainingConfig, json.loads(json.dumps(to_mapping(config)))) == config


def test_configuration_is_free_of_torch():
    code = "import sys, trajlm.training.config; sys.exit('torch' in sys.modules)"
    path = str(clocks.__file__).rsplit("/trajlm/", 1)[0]
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}).returncode == 0


def test_clock_of_steps():
    assert [step for step in range(10) if EverySteps(4)(step)] == [4, 8]
    assert not any(EverySteps(0)(step) for step in range(10))


def test_clock_of_seconds_and_stopwatch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now[0])
    due, watch = EverySeconds(10), Stopwatch()
    assert not due()
    now[0] = 110.0
    assert due()
    assert not due()
    with watch.pause():
        now[0] = 150.0
    now[0] = 151.0
    assert watch.seconds == 11.0


def test_schedule_values():
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    assert [learning_rate(config, step) for step in (0, 1, 9, 10, 99)] == [0.1, 0.2, 1.0, 1.0, 1.0]
    config = TrainingConfig(
        steps=110, warmup_steps=10, learning_rate=1.0, schedule="cosine", final_rate=0.1
    )
    found = [learning_rate(config, step) for step in (0, 10, 60, 110, 500)]
    assert found == pytest.approx([0.1, 1.0, 0.55, 0.1, 0.1])
    assert learning_rate(TrainingConfig(warmup_steps=0, learning_rate=2.0), 0) == 2.0


def test_published_schedule():
    """The rate of the update that begins an epoch, with the recipe's numbers: after the end of the
    cosine at epoch 20 it rises again."""
    _, mapping = find_recipe("trajectory_transformer/paper")
    config = from_mapping(TrainingConfig, mapping["training"])
    assert config.schedule == "cosine"
    epoch = 1e6 / config.batch_size

    def multiplier(epochs: float, *, published: bool = True) -> float:
        rate = learning_rate(config, round(epochs * epoch), published=published)
        return rate / config.learning_rate

    told = {20: 0.1, 35: 0.90, 39: 1.0, 50: 0.38}
    for epochs, expected in told.items():
        assert multiplier(epochs) == pytest.approx(expected, abs=0.006)
        assert multiplier(epochs, published=False) == pytest.approx(0.1)
    assert multiplier(0.5) == pytest.approx(0.5, abs=0.001)
    assert multiplier(0.5, published=False) == pytest.approx(0.5, abs=0.001)
    assert multiplier(10.5) == pytest.approx(0.5, abs=0.001)
    # Theirs is cut off below, ours ends there.
    assert multiplier(10.5, published=False) == pytest.approx(0.55, abs=0.001)


def test_published_rate_is_that_of_their_loop():
    """Written out: they set the rate after an update, from the updates that were made."""
    config = TrainingConfig(
        steps=60, warmup_steps=5, decay_steps=20, learning_rate=2.0, schedule="cosine"
    )
    rate, rates = 2.0, []
    for done in range(1, 61):
        rates.append(rate)
        if done < 5:
            rate = 2.0 * done / 5
        else:
            rate = 2.0 * max(0.1, 0.5 * (1 + math.cos(math.pi * (done - 5) / 15)))
    found = [learning_rate(config, step, published=True) for step in range(60)]
    assert found == pytest.approx(rates)
    assert found[:2] == [2.0, 0.4]


def test_linear_decay_groups_are_the_published_ones():
    """Linear maps and the head decay; tables, positions, norms and biases do not."""
    layout = DataSpec(observation=Box(shape=(3,)), action=Box(shape=(2,)), horizon=10)
    entry, mapping = find_recipe("trajectory_transformer/paper")
    config = from_mapping(entry.config_module.Config, {**mapping["model"], "goal": "last"})
    model = entry.algorithm_class.build(config, layout, {})
    training = from_mapping(TrainingConfig, mapping["training"])
    optimizer = make_optimizer(model, training)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in g["params"]} for g in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    maps = ("attention.input", "attention.output", "mlp_input", "mlp_output")
    expected = {f"transformer.blocks.{n}.{m}.weight" for n in range(4) for m in maps}
    assert decayed == {*expected, "head.weight"}
    assert decayed | spared == set(names.values())
    assert {"embed_token.weight", "embed_goal.weight", "position"} <= spared


def test_decay_groups():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    model[0].bias.requires_grad_(False)
    (group,) = make_optimizer(model, TrainingConfig(weight_decay=0.1)).param_groups
    assert len(group["params"]) == 3
    assert group["weight_decay"] == 0.1
    decayed, spared = make_optimizer(model, TrainingConfig(decay="matrices")).param_groups
    assert decayed["params"] == [model[0].weight]
    assert [len(spared["params"]), spared["weight_decay"]] == [2, 0.0]


def test_guard_freezes_every_later_update():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(torch.nn.ParameterList([parameter]), TrainingConfig())
    guard = FiniteGuard([optimizer], device=torch.device("cpu"))
    values = []
    for step, loss in enumerate([1.0, math.inf, 1.0]):
        parameter.grad = torch.ones(3)
        guard.watch(step, torch.tensor(loss), torch.tensor(1.0))
        optimizer.step()
        values.append(float(parameter[0].detach()))
    assert values[0] < 1.0
    assert values == [values[0]] * 3
    assert guard.bad_step == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t: fpu avx512f avx512_bf16 amx_tile\n", "AVX512-BF16"),
        ("flags : fpu amx_bf16\n", "AMX-BF16"),
        ("Features : fp asimd bf16\n", "ARM bf16"),
        ("flags : fpu avx512f avx2\n", ""),
        ("model name : avx512_bf16\n", ""),
        ("", ""),
    ],
)
def test_native_bf16_is_read_from_the_flags(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert native_cpu_bf16(tmp_path / "cpuinfo") == expected
    assert native_cpu_bf16(tmp_path / "none") == ""


@pytest.mark.parametrize(("found", "name"), [("AMX-BF16", "bf16"), ("", "float32")])
def test_precision_is_chosen_with_a_reason(monkeypatch, found, name):
    monkeypatch.setattr("trajlm.training.precision.native_cpu_bf16", lambda: found)
    chosen = choose_precision("auto")
    assert chosen.name == name
    assert (found or "no native bf16") in str(chosen)
    assert choose_precision("float32").name == "float32"
    with choose_precision("bf16").autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16


HOLD = """
import sys, time
from pathlib import Path
from trajlm.training.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_refuses_a_second_process_and_is_free_after_a_kill(tmp_path, caplog):
    path = str(clocks.__file__).rsplit("/trajlm/", 1)[0]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=rf"in use by process {process.pid} on") as caught:
            RunLock(tmp_path).__enter__()
        assert caught.value.exit_code == 7
    finally:
        process.kill()
        process.communicate()
    with caplog.at_level(logging.WARNING), RunLock(tmp_path):
        assert f"left by process {process.pid}" in caplog.text
    caplog.clear()
    with RunLock(tmp_path):  # left in order: nothing to report
        assert caplog.text == ""


def test_metrics_lines_are_whole_or_not_there(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.open(0)
    log.append({"step": 1, "time": 0.5, "a": math.nan})

    def short(descriptor, data, write=os.write):
        return write(descriptor, data[:5])

    with monkeypatch.context() as patch:
        patch.setattr("trajlm.training.metrics.os.write", short)
        with pytest.raises(StorageError, match=r"metrics\.jsonl"):
            log.append({"step": 2, "time": 0.6})
    log.append({"step": 3, "time": 0.7})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 1, "time": 0.5, "a": None},
        {"step": 3, "time": 0.7},
    ]


@pytest.mark.parametrize("tail", ['{"step": 3', "nonsense\n", "[]\n", '{"step": 9, "time": 1}\n'])
def test_metrics_log_opens_after_the_last_good_line(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "time": 0.5}\n{"step": 2, "time": 1.5}\n'
    path.write_text(good + tail)
    log = MetricsLog(path)
    assert log.open(5) == 1.5
    log.close()
    assert path.read_text() == good


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    display = Display(100, "train", stream)
    display.open(0)
    display.show(40, loss=0.1234, rate=2.0)
    display.stage("validation")
    display.close()
    text = stream.getvalue()
    assert "40/100" in text
    assert "loss 0.1234" in text
    assert "2.0 updates/s" in text
    assert "0:30 left" in text
    assert "train: validation" in text


def test_time_left():
    assert [time_left(s) for s in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


def test_tensorboard_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from trajlm.training.metrics import TensorBoard

    board = TensorBoard(tmp_path)
    board.open(0)
    board.add(3, {"step": 3, "time": 1.0, "train/loss": 0.5})
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
