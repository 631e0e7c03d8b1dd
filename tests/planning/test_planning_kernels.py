"""Compiled passes: any sizes, any company and threads, and what cannot be compiled says why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from token_models import compiles
from trajlm.algorithms.trajectory_transformer.config import Config, PolicyConfig
from trajlm.algorithms.trajectory_transformer.model import Model
from trajlm.core.errors import CheckpointError, StorageError, UsageError
from trajlm.core.spec import Box, DataSpec
from trajlm.nn.transformer import ACTIVATIONS
from trajlm.planning import kernels
from trajlm.planning.compiled import CompiledModel, Pool
from trajlm.planning.recompute import RecomputeModel
from trajlm.planning.window import Window


def random_model(*, width: int = 16, heads: int = 2) -> Model:
    spec = DataSpec(observation=Box(shape=(3,)), action=Box(shape=(2,)), horizon=100)
    config = Config(transitions=6, num_bins=8, width=width, num_layers=3, num_heads=heads)
    torch.manual_seed(0)
    model = Model.build(config, spec, {}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def window_of(model: Model) -> Window:
    return Window(kind="published", slots=model.layout.size, context=3, block=model.block_size)


def walked(model: Model, kind: type, *, rows: slice = slice(None)) -> torch.Tensor:
    """Logits after each of 20 tokens of four rows that part early, (20, R, V)."""
    made = kind(model, window_of(model))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 8, (20, 4), generator=generator)
    found = []
    with torch.inference_mode():
        made.prefill(torch.zeros(1, 3, dtype=torch.int64))
        made.expand(len(range(4)[rows]))
        found = [made.step(row[rows]) for row in tokens]
    return torch.stack(found)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache of its own, in which nothing was compiled."""
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "cache"))
    kernels.library.cache_clear()
    yield tmp_path / "cache" / "kernels"
    kernels.library.cache_clear()


@compiles
@pytest.mark.parametrize(("width", "heads"), [(16, 1), (24, 2), (10, 2), (96, 3)])
def test_any_sizes_are_the_networks_own(width: int, heads: int) -> None:
    """Heads of whole vectors, of parts of one and of odd sizes; panels that are filled up."""
    model = random_model(width=width, heads=heads)
    expected, found = walked(model, RecomputeModel), walked(model, CompiledModel)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    model = model.double()
    expected, found = walked(model, RecomputeModel), walked(model, CompiledModel)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


@compiles
@pytest.mark.parametrize("width", [8, 16, 128])
def test_neither_company_nor_threads_change_a_bit(width: int) -> None:
    """Of the compiled passes; the head's product is PyTorch's."""
    made = CompiledModel(model := random_model(width=width), window_of(model))
    generator = torch.Generator().manual_seed(1)
    made.pool.take(40)
    made.pool.buffer.normal_(generator=generator)
    x = torch.randn(13, width, generator=generator)
    seen = torch.randint(0, 40, (13, 9), generator=generator, dtype=torch.int32)
    counts = torch.randint(1, 10, (13,), generator=generator, dtype=torch.int32)
    into = torch.full((13,), -1, dtype=torch.int32)

    def run(rows: slice) -> torch.Tensor:
        return made._run(x[rows].clone(), into[rows], seen[rows], counts[rows], apart=True)

    together, before = run(slice(13)), torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            for count in range(1, 14):
                assert torch.equal(run(slice(count)), together[:count])
                assert torch.equal(run(slice(13 - count, 13)), together[13 - count :])
    finally:
        torch.set_num_threads(before)


@compiles
def test_it_is_compiled_once_and_found_again(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    umask = os.umask(0)
    try:
        expected = walked(model, CompiledModel)
    finally:
        os.umask(umask)
    (made,) = fresh.iterdir()
    when = made.stat().st_mtime_ns
    kernels.library.cache_clear()
    monkeypatch.setattr(kernels, "_compile", lambda *_: pytest.fail("compiled again"))
    assert torch.equal(walked(model, CompiledModel), expected)
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [when]


@compiles
@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_another_compiler_gives_the_same_plan(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model().double()
    monkeypatch.setenv("CC", "clang")
    found = walked(model, CompiledModel)
    assert len(list(fresh.iterdir())) == 1
    torch.testing.assert_close(found, walked(model, RecomputeModel), rtol=0, atol=1e-9)


def test_without_a_compiler_the_policy_says_so(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UsageError, match=r"need a C compiler; none of .*--policy\.kernels torch"):
        random_model().policy(kernels="compiled", context=2)
    monkeypatch.setenv("CC", "no-such-cc -O2")
    with pytest.raises(UsageError, match=r"\$CC is no-such-cc -O2, which is not there"):
        random_model().policy(kernels="compiled", context=2)
    assert not fresh.exists()


@compiles
def test_the_compiler_may_have_flags(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = kernels.compiler()
    assert program is not None
    monkeypatch.setenv("CC", f"{program[0]} -DUNUSED=1")
    assert kernels.compiler() == [program[0], "-DUNUSED=1"]
    walked(random_model(), CompiledModel)
    assert len(list(fresh.iterdir())) == 1


@compiles
@pytest.mark.parametrize("by_others", ["folder", "file"])
def test_what_others_may_write_is_not_loaded(fresh: Path, by_others: str) -> None:
    walked(random_model(), CompiledModel)
    (made,) = fresh.iterdir()
    (fresh if by_others == "folder" else made).chmod(0o777)
    kernels.library.cache_clear()
    with pytest.raises(UsageError, match=r"may be written by others; set TRAJLM_CACHE"):
        walked(random_model(), CompiledModel)


@compiles
def test_a_source_that_does_not_compile_tells_its_first_error(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.c"
    wrong.write_text("int run(void) { return missing; }\n")
    monkeypatch.setattr(kernels, "SOURCE", wrong)
    with pytest.raises(UsageError, match=r"failed: .*wrong\.c:1:.*error: .*missing"):
        walked(random_model(), CompiledModel)
    assert not list(fresh.iterdir())


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("#!/bin/sh\necho 'no such processor' >&2\nexit 1\n", "no such processor"),
        ("no program", "Exec format error"),
    ],
)
def test_a_compiler_that_fails_is_named_and_leaves_nothing(
    program: str, told: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text(program)
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(UsageError, match=f"broken-cc failed: {told}; or take"):
        random_model().policy(kernels="compiled", context=2)
    assert not list(fresh.iterdir())


@compiles
def test_a_damaged_library_is_named(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_compile(_: list[str], file: Path) -> None:
        file.write_bytes(b"half a library")
        file.chmod(0o700)

    fresh.mkdir(mode=0o700, parents=True)
    monkeypatch.setattr(kernels, "_compile", half_compile)
    with pytest.raises(UsageError, match=r"kernels/[0-9a-f]+\.so cannot be loaded .*delete it"):
        walked(random_model(), CompiledModel)


@compiles
def test_a_cache_that_cannot_be_written_is_named(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAJLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file/kernels.*cannot be written"):
        random_model().policy(kernels="compiled", context=2)


def test_what_compiled_passes_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="kernels: compiled ones keep float32"):
        PolicyConfig(kernels="compiled", precision="bf16")
    model = random_model()
    with pytest.raises(UsageError, match="not for bf16"):
        CompiledModel(model, window_of(model), torch.bfloat16)
    half = random_model().bfloat16()
    with pytest.raises(UsageError, match="not for bf16"):
        CompiledModel(half, window_of(half))
    for block in model.transformer.blocks:
        block.activation = ACTIVATIONS["relu"]
    with pytest.raises(UsageError, match="no other activation than gelu"):
        CompiledModel(model, window_of(model))


@compiles
def test_weights_that_are_no_numbers_are_told() -> None:
    model = random_model()
    with torch.no_grad():
        model.transformer.blocks[1].mlp_input.weight[3, 2] = torch.nan
    assert torch.isnan(walked(model, CompiledModel)).all()
    policy = model.policy(kernels="compiled", context=2, horizon=1)
    from trajlm.bench.planning import our_plans, random_pasts

    with pytest.raises(CheckpointError, match="not numbers"):
        our_plans(policy, random_pasts(policy, 1), seeds=[0])


@compiles
def test_a_policy_plans_alike_with_either_kind_of_kernels() -> None:
    from trajlm.bench.planning import our_plans, random_pasts

    policy = random_model(width=64, heads=4).policy(context=3, horizon=3, beam_width=8)
    compiled = replace(policy, config=replace(policy.config, kernels="compiled"))
    pasts = random_pasts(policy, 5)
    expected, found = (our_plans(p, pasts, seeds=range(5)) for p in (policy, compiled))
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)


def test_a_pool_keeps_what_is_seen_and_grows() -> None:
    pool = Pool(2, 4, torch.float32)
    first = pool.take(6)
    pool.buffer[:, :6] = torch.arange(6.0)[:, None, None]
    seen = first[torch.tensor([[5, 1], [1, 3]])]
    seen = pool.keep(seen)
    assert pool.used == 3
    assert pool.buffer[1, seen.long(), 0, 0].tolist() == [[5, 1], [1, 3]]
    further = pool.take(100)
    assert further.tolist() == list(range(3, 103))
    assert pool.buffer[1, seen.long(), 1, 3].tolist() == [[5, 1], [1, 3]]
