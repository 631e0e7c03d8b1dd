"""Videos: a file in every case that has one, the package named where it has not."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mujoco")
Image = pytest.importorskip("PIL.Image")

from trajlm.envs.make import make_environment, registered  # noqa: E402
from trajlm.evaluation import video  # noqa: E402
from trajlm.evaluation.drawing import Caption, PlanarRenderer, write_caption  # noqa: E402
from trajlm.evaluation.rendering import (  # noqa: E402
    EglRenderer,
    egl_fault,
    is_planar,
    limbs,
    restyled,
)

BODIES = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"]
SIZE = (240, 136)


class Waving:
    """Bends every joint to and fro."""

    def __init__(self, size: int) -> None:
        self.size = size

    def initial(self, num_envs, condition=None):
        return 0

    def act(self, carry, step):
        wave = np.sin(0.7 * carry + np.arange(self.size))
        return carry + 1, np.tile(wave.astype(np.float32), (len(step.seed), 1))


def physics_of(env_id: str):
    environment = make_environment(env_id)
    environment.reset(seed=0)
    return environment.unwrapped


@pytest.fixture
def short_cheetah(monkeypatch):
    monkeypatch.setattr(registered("HalfCheetah-v5"), "max_episode_steps", 24)
    return Waving(6)


def is_orange(pixel: np.ndarray) -> bool:
    red, green, blue = (int(c) for c in pixel)
    return red > green + 30 > blue + 30


@pytest.mark.parametrize("env_id", BODIES)
def test_planar_bodies_are_drawn_where_they_are(env_id):
    physics = physics_of(env_id)
    assert is_planar(physics.model)
    renderer = PlanarRenderer(physics.model, width=480, height=270)
    picture = renderer.picture(physics.data)
    assert picture.shape == (270, 480, 3)
    assert picture.dtype == np.uint8
    scale = 270 / renderer._view.height
    center = renderer._view.center(physics.data)
    for geom in limbs(physics.model):
        x, _, z = physics.data.geom_xpos[geom]
        column, row = 240 + (x - center[0]) * scale, 135 - (z - center[2]) * scale
        name = physics.model.geom(geom).name
        if "left" not in name:  # the walker stands with its legs together
            assert is_orange(picture[round(row), round(column)]), name


def test_the_track_moves_under_a_body_that_keeps_its_pose():
    physics = physics_of("HalfCheetah-v5")
    renderer = PlanarRenderer(physics.model, width=240, height=136)
    before = renderer.picture(physics.data)
    position = physics.data.qpos.copy()
    position[0] += 0.5
    physics.set_state(position, physics.data.qvel.copy())
    after = renderer.picture(physics.data)
    changed = (before.astype(int) != after.astype(int)).any(axis=2).mean()
    assert 0.001 < changed < 0.3
    middle = slice(40, 75)
    body = np.abs(before[middle, 100:140].astype(int) - after[middle, 100:140]).mean()
    assert body < 10


def test_other_bodies_are_not_planar():
    assert not is_planar(physics_of("Ant-v5").model)


def test_drawing_leaves_the_simulated_model_alone():
    physics = physics_of("HalfCheetah-v5")
    before = (physics.model.geom_size.copy(), physics.model.geom_rgba.copy())
    model = restyled(physics.model, width=64, height=64)
    assert not np.array_equal(model.geom_rgba, before[1])
    assert np.array_equal(physics.model.geom_size, before[0])
    assert np.array_equal(physics.model.geom_rgba, before[1])


def test_the_caption_shows_the_share_of_the_return_asked_for():
    blank = np.full((120, 400, 3), 90, np.uint8)
    shares = []
    for so_far in (0.0, 500.0, 1000.0, 2000.0, -300.0):
        caption = Caption(title="X", asked=1000.0, so_far=so_far, step=3)
        bar = write_caption(blank, caption)[28]
        shares.append(float((bar[:, 0].astype(int) - bar[:, 1] > 80).mean()))
    np.testing.assert_allclose(shares, [0, 0.5, 1, 1, 0], atol=0.01)
    nothing = write_caption(blank, Caption(title="X", asked=None, so_far=5.0, step=3))
    assert (nothing[40:] == 90).all()
    assert (nothing[:20] != 90).any()


def test_an_mp4_is_written(tmp_path, short_cheetah):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = video.record(
        short_cheetah,
        env_id="HalfCheetah-v5",
        target=[4000.0, 100.0],
        seed=3,
        path=tmp_path / "eval" / "video",
        size=SIZE,
        gl=False,
    )
    assert path == tmp_path / "eval" / "video.mp4"
    assert [file.name for file in path.parent.iterdir()] == ["video.mp4"]
    facts = next(imageio_ffmpeg.read_frames(str(path)))
    assert facts["size"] == (240, 160)  # two lanes
    assert facts["fps"] == 20
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 24 + 20  # every step, then a second of the last picture


def test_a_gif_is_written_where_ffmpeg_is_missing(tmp_path, short_cheetah, monkeypatch, caplog):
    without(monkeypatch, "imageio_ffmpeg")
    path = video.record(
        short_cheetah,
        env_id="HalfCheetah-v5",
        target=4000.0,
        seed=3,
        path=tmp_path / "video.mp4",
        size=SIZE,
        gl=False,
    )
    assert path == tmp_path / "video.gif"
    with Image.open(path) as film:
        assert film.n_frames > 20
        assert film.size == SIZE
    assert 'pip install "trajlm[video]"' in caplog.text


def test_without_pillow_there_is_no_video_and_the_line_to_install_it(
    tmp_path, short_cheetah, monkeypatch, caplog
):
    without(monkeypatch, "PIL")
    options = {"env_id": "HalfCheetah-v5", "target": 1.0, "seed": 3, "size": SIZE}
    assert video.record(short_cheetah, path=tmp_path / "video.mp4", **options) is None
    assert 'pip install "trajlm[video]"' in caplog.text
    assert list(tmp_path.iterdir()) == []


def without(monkeypatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == package else find(name, *rest),
    )


def test_without_gl_planar_bodies_are_drawn_and_the_packages_are_named(monkeypatch, caplog):
    monkeypatch.setattr(video, "egl_fault", lambda: "no library")
    model = physics_of("Hopper-v5").model
    renderer = video.renderer_of(model, size=SIZE, gl=None)
    assert isinstance(renderer, PlanarRenderer)
    assert "apt-get install libegl1" in caplog.text


def test_without_gl_other_bodies_have_no_video(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(video, "egl_fault", lambda: "no library")
    options = {"env_id": "Ant-v5", "target": 1.0, "seed": 3, "size": SIZE}
    assert video.record(Waving(8), path=tmp_path / "video.mp4", **options) is None
    assert "apt-get install libegl1" in caplog.text


def test_a_renderer_that_fails_in_this_process_falls_back(monkeypatch):
    def explode(*arguments, **options):
        raise RuntimeError("no context")

    monkeypatch.setattr(video, "egl_fault", lambda: None)
    monkeypatch.setattr(video, "EglRenderer", explode)
    model = physics_of("Hopper-v5").model
    assert isinstance(video.renderer_of(model, size=SIZE, gl=None), PlanarRenderer)


@pytest.mark.skipif(egl_fault() is not None, reason=f"EGL: {egl_fault()}")
def test_egl_draws_the_cheetah_in_the_middle():
    physics = physics_of("HalfCheetah-v5")
    renderer = EglRenderer(physics.model, width=160, height=96)
    try:
        picture = renderer.picture(physics.data)
    finally:
        renderer.close()
    assert picture.shape == (96, 160, 3)
    orange = np.array([[is_orange(pixel) for pixel in row] for row in picture])
    assert orange[20:80, 30:130].sum() > 100
    assert orange[:10].sum() == 0


def test_a_filmstrip_is_a_grid_of_moments(tmp_path, short_cheetah):
    path = video.filmstrip(
        short_cheetah,
        env_id="HalfCheetah-v5",
        target=4000.0,
        seed=3,
        path=tmp_path / "strip.png",
        size=SIZE,
        columns=3,
        rows=2,
        start=4,
        every=2,
        gl=False,
    )
    with Image.open(path) as strip:
        assert strip.size == (720, 272)
        pixels = np.asarray(strip)
    assert not np.array_equal(pixels[40:136, :240], pixels[40:136, 240:480])


def test_an_episode_that_ends_early_says_so_and_stops(tmp_path):
    film = video.Film.of(
        Waving(3), env_id="Hopper-v5", targets=(3000.0,), seed=1, size=SIZE, gl=False
    )
    pictures = list(film.frames(1000))
    film.close()
    assert len(pictures) < 100
    red = pictures[-1][26:48].astype(int)
    assert ((red[..., 0] - red[..., 1]) > 100).any()


def test_environments_with_pictures_of_their_own_are_filmed(monkeypatch):
    class Flat(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 1.0, False, False, {}

        def render(self):
            return np.full((50, 50, 3), 30, np.uint8)

    gymnasium.register("trajlm-tests/Flat-v0", entry_point=Flat, max_episode_steps=5)
    try:
        film = video.Film.of(
            Waving(1), env_id="trajlm-tests/Flat-v0", targets=(None,), seed=1, size=SIZE, gl=None
        )
        pictures = list(film.frames(100))
        film.close()
    finally:
        del gymnasium.registry["trajlm-tests/Flat-v0"]
    assert len(pictures) == 5 + 10
    assert pictures[0].shape == (136, 240, 3)
    assert pictures[0][100, 120].tolist() == [30, 30, 30]


def test_mujoco_gl_without_its_library_does_not_stop_an_evaluation(tmp_path):
    """MUJOCO_GL=egl makes `import mujoco` itself raise where libEGL is missing."""
    broken = tmp_path / "OpenGL"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise AttributeError('no eglQueryString')")
    code = (
        "from trajlm.envs.make import make_environment\n"
        "make_environment('HalfCheetah-v5').reset(seed=0)\n"
    )
    paths = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MUJOCO_GL": "egl", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "MUJOCO_GL=egl does not work here" in done.stderr
    assert logging.getLogger("trajlm.envs.make").propagate
