"""Making environments: only registered ids, one line for what is missing, spaces that must fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from trajlm.core.errors import EnvironmentFault
from trajlm.core.spec import Box, DataSpec, DictSpace, Discrete, MultiDiscrete
from trajlm.envs.make import check_spaces, make_environment, make_vector, max_episode_steps
from trajlm.envs.spaces import from_gymnasium

SPEC = DataSpec(
    observation=Box(shape=(4,)), action=Discrete(n=2), horizon=500, env_id="CartPole-v1"
)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("os:CartPole-v1", "would import a module"),
        ("subprocess:call", "would import a module"),
        ("HalfChetah-v5", "did you mean 'HalfCheetah-v5'"),
        ("HalfCheetah-v1", "did you mean 'HalfCheetah-v5'"),
        ("CartPole", "did you mean 'CartPole-v1'"),
        ("", "not registered"),
    ],
)
def test_ids_outside_the_registry_are_refused(env_id, message):
    with pytest.raises(EnvironmentFault, match=message) as caught:
        make_environment(env_id)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_module_named_in_an_id_is_not_imported():
    with pytest.raises(EnvironmentFault):
        make_environment("antigravity_that_is_not:Env-v0")
    with pytest.raises(EnvironmentFault):
        max_episode_steps("this:CartPole-v1")
    assert "this" not in sys.modules


def test_a_missing_extra_names_the_pip_line():
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from trajlm.core.errors import EnvironmentFault\n"
        "from trajlm.envs.make import make_environment\n"
        "try:\n    make_environment('HalfCheetah-v5')\n"
        "except EnvironmentFault as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 'pip install "trajlm[mujoco]"' in out.stdout, out.stderr
    assert len(out.stdout.splitlines()) == 1


def test_a_constructor_that_raises_is_a_fault():
    def explode():
        raise ValueError("no display\nmore")

    gymnasium.register("trajlm-tests/Explode-v0", entry_point=explode)
    try:
        with pytest.raises(EnvironmentFault, match=r"cannot be made: no display$"):
            make_environment("trajlm-tests/Explode-v0")
    finally:
        del gymnasium.registry["trajlm-tests/Explode-v0"]


def test_limits_and_fitting_spaces():
    assert max_episode_steps("CartPole-v1") == 500
    check_spaces(SPEC, make_vector("CartPole-v1", num_envs=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation": Box(shape=(17,))}, r"observations Box\(4,\).*Box\(17,\)"),
        ({"action": Discrete(n=3)}, r"actions Discrete\(2\).*Discrete\(3\)"),
        ({"action": Box(shape=(2,))}, r"actions Discrete\(2\).*Box\(2,\)"),
        ({"observation": DictSpace(subspaces={"a": Box(shape=(4,))})}, r"Box\(4,\).*a: Box\(4,\)"),
    ],
)
def test_spaces_that_differ_are_refused_with_both_shapes(change, message):
    environment = make_vector("CartPole-v1", num_envs=1)
    with pytest.raises(EnvironmentFault, match=message):
        check_spaces(replace(SPEC, **change), environment)


def test_spaces_become_plain_data():
    spaces = gymnasium.spaces
    assert from_gymnasium(spaces.Box(-np.inf, np.inf, (3,), np.float64)) == Box(
        shape=(3,), dtype="float64"
    )
    assert from_gymnasium(spaces.Box(-1, 1, (2,), np.float32)) == Box(
        shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)
    )
    assert from_gymnasium(spaces.Discrete(3, start=1)) == Discrete(n=3, start=1)
    assert from_gymnasium(spaces.MultiDiscrete([2, 3])) == MultiDiscrete(nvec=(2, 3))
    assert from_gymnasium(spaces.MultiBinary(2)) == MultiDiscrete(nvec=(2, 2), dtype="int8")
    nested = spaces.Dict({"b": spaces.Dict({"c": spaces.Discrete(2)})})
    assert from_gymnasium(nested) == DictSpace(
        subspaces={"b": DictSpace(subspaces={"c": Discrete(n=2)})}
    )
    with pytest.raises(EnvironmentFault, match="Text"):
        from_gymnasium(spaces.Text(5))


def test_mujoco_writes_no_log_file_and_no_warning(tmp_path):
    """HalfCheetah's model is deprecated by MuJoCo 4, once for every environment made."""
    pytest.importorskip("mujoco")
    code = (
        "from trajlm.envs.make import make_vector\n"
        "make_vector('HalfCheetah-v5', num_envs=2).reset(seeds=[0, 1])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    assert out.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_minigrid_task_shows_its_view_as_integers():
    pytest.importorskip("minigrid")
    from gymnasium.utils.env_checker import check_env

    environment = make_environment("trajlm/MiniGrid-LavaGapS5-v0")
    assert max_episode_steps("trajlm/MiniGrid-LavaGapS5-v0") is None
    check_env(environment, skip_render_check=True)
    space = from_gymnasium(environment.observation_space)
    assert space == MultiDiscrete(nvec=(11, 6, 4) * 49 + (4,), dtype="int64")
    shown, _ = environment.reset(seed=3)
    original, _ = gymnasium.make("MiniGrid-LavaGapS5-v0").reset(seed=3)
    np.testing.assert_array_equal(shown[:-1].reshape(7, 7, 3), original["image"])
    assert shown[-1] == original["direction"]


def test_an_unknown_minigrid_task_names_the_package():
    with pytest.raises(EnvironmentFault, match=r"trajlm\[minigrid\]"):
        make_environment("trajlm/MiniGrid-Nowhere-v0")
