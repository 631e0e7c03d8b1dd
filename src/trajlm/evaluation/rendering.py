"""Pictures of MuJoCo environments through EGL, without a display and without shadows.

Mesa's software renderer takes 46 ms a frame with MuJoCo's defaults, most of it for shadows,
multisampling and reflections; without them 3 to 10 ms. A soft spot under each limb stands in for
its shadow.

Legend: H, W the picture's height and width in pixels.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

logger = logging.getLogger(__name__)

GL_PACKAGES = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"
FIELD_OF_VIEW = 45.0  # degrees, vertical: MuJoCo's default

# Colours in 0..1: floor squares, sky from horizon to zenith, limbs from trunk to foot.
_FLOOR = np.array([[0.78, 0.82, 0.84], [0.90, 0.92, 0.93]])
_SKY = np.array([[0.93, 0.96, 0.98], [0.50, 0.68, 0.86]])
_RIGHT = np.array([[0.95, 0.60, 0.26], [0.78, 0.33, 0.20]])
_LEFT = np.array([[0.52, 0.64, 0.84], [0.26, 0.37, 0.62]])
WIDEST = 3.0
"""Metres of the world in a picture's height, of bodies that move in all directions."""
GHOST = (0.18, 0.33, 0.52, 0.22)
"""Of bodies that are only possible; the last is how opaque each is."""

_PROBE = """
from mujoco.egl import GLContext
import mujoco
context = GLContext(16, 16)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
"""


class Renderer(Protocol):
    """Draws one environment at a time."""

    def picture(
        self, data: Any, *, ghosts: Sequence[Any] = (), x: float | None = None
    ) -> np.ndarray:
        """(H, W, 3) uint8 of MuJoCo's `data`, which belongs to the model it was made for.

        `ghosts`: further `data`, seen through. `x`: the view is that of a body which stands there.
        """
        ...

    def close(self) -> None: ...


@functools.cache
def egl_fault() -> str | None:
    """Why EGL cannot draw here, None where it can. Tried in a process of its own.

    A broken driver may end the process that tries it, and with MUJOCO_GL=egl a missing library
    fails the import of MuJoCo itself.
    """
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"trying EGL failed: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1]


class EglRenderer:
    """Draws a model with OpenGL. Raises whatever MuJoCo or EGL raise where it cannot be set up."""

    def __init__(self, model: Any, *, width: int, height: int) -> None:
        import mujoco
        from mujoco.egl import GLContext

        self._mujoco = mujoco
        self._model = restyled(model, width=width, height=height)
        self._view = View.of(model)
        self._size = (height, width)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._gl = GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(self._model, 2000)
        for flag in ("mjRND_SHADOW", "mjRND_REFLECTION"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()

    def picture(
        self, data: Any, *, ghosts: Sequence[Any] = (), x: float | None = None
    ) -> np.ndarray:
        mujoco = self._mujoco
        camera, view = self._camera, self._view
        camera.lookat[:] = view.center(data)
        if x is not None:
            camera.lookat[0] = x + view.ahead
        camera.azimuth, camera.elevation = 90.0, view.elevation
        camera.distance = view.height / (2 * np.tan(np.radians(FIELD_OF_VIEW) / 2))
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, camera, everything, self._scene
        )
        for ghost in ghosts:
            self._ghost(ghost)
        self._ground_spots(data)
        self._distance_posts(float(camera.lookat[0]))
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        pixels = np.empty((*self._size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        return pixels[::-1]

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def _ghost(self, data: Any) -> None:
        scene, mujoco = self._scene, self._mujoco
        first, moving = scene.ngeom, mujoco.mjtCatBit.mjCAT_DYNAMIC.value
        mujoco.mjv_addGeoms(self._model, data, self._option, mujoco.MjvPerturb(), moving, scene)
        for number in range(first, scene.ngeom):
            scene.geoms[number].rgba[:] = GHOST
            scene.geoms[number].pos[1] += 0.15  # behind the solid body

    def _ground_spots(self, data: Any) -> None:
        for geom in limbs(self._model):
            start, end, radius = capsule(self._model, data, geom)
            middle, reach = (start + end) / 2, np.abs(end - start) / 2
            height = max(float(middle[2]), 0.0)
            self._add(
                "mjGEOM_ELLIPSOID",
                size=(reach[0] + radius, reach[1] + radius, 1e-3),
                position=(middle[0], middle[1], 2e-3),
                color=(0.1, 0.12, 0.16, 0.28 / (1 + 2 * height)),
            )

    def _distance_posts(self, x: float) -> None:
        """A post every 5 m behind the track, every second one tall and red, so that speed shows."""
        for number in range(int(x / 5) - 4, int(x / 5) + 6):
            tall = number % 2 == 0
            half = 0.30 if tall else 0.18
            self._add(
                "mjGEOM_CYLINDER",
                size=(0.05, half, 0.0),
                position=(5.0 * number, 2.0, half),
                color=(0.83, 0.30, 0.27, 1) if tall else (1, 1, 1, 1),
            )

    def _add(
        self,
        kind: str,
        *,
        size: tuple[float, ...],
        position: tuple[float, ...],
        color: tuple[float, ...],
    ) -> None:
        scene = self._scene
        if scene.ngeom >= scene.maxgeom:
            return
        self._mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            getattr(self._mujoco.mjtGeom, kind),
            np.array(size, float),
            np.array(position, float),
            np.eye(3).ravel(),
            np.array(color, np.float32),
        )
        scene.ngeom += 1


class View:
    """What part of the world is shown: `height` metres of it, around a body that moves."""

    def __init__(self, *, height: float, middle: float, ahead: float, elevation: float) -> None:
        self.height, self.middle, self.ahead, self.elevation = height, middle, ahead, elevation

    @classmethod
    def of(cls, model: Any) -> View:
        """From the height at which the model's first body stands."""
        stands = float(model.body_pos[1][2]) if model.nbody > 1 else 1.0
        if is_planar(model):
            return cls(
                height=1.15 + 1.05 * stands, middle=0.56 * stands + 0.12, ahead=0.15, elevation=-9
            )
        height = min(5.0 * stands, WIDEST)
        return cls(height=height, middle=0.5 * stands, ahead=0.0, elevation=-20)

    def center(self, data: Any) -> np.ndarray:
        """The point in the middle of the picture: (3,) metres. It follows the first body."""
        x, y, _ = data.xpos[1]
        return np.array([x + self.ahead, y, self.middle])


def is_planar(model: Any) -> bool:
    """True for bodies of capsules that move in the plane y = 0: cheetah, hopper, walker."""
    return (
        model.nq >= 3
        and bool(np.all(model.jnt_type[:3] == [2, 2, 3]))  # slide, slide, hinge
        and bool(np.all(np.abs(model.jnt_axis[2]) == [0, 1, 0]))
        and _all_round(model)
    )


def is_free(model: Any) -> bool:
    """True for one body of capsules and spheres that moves and turns in all directions: humanoid, ant."""
    return (
        model.njnt > 0
        and bool(model.jnt_type[0] == 0)
        and bool(np.all(model.jnt_type[1:] == 3))
        and _all_round(model)
    )


def _all_round(model: Any) -> bool:
    """Whether all limbs are capsules, or spheres, which are capsules without length."""
    import mujoco

    kinds = (mujoco.mjtGeom.mjGEOM_CAPSULE.value, mujoco.mjtGeom.mjGEOM_SPHERE.value)
    return all(model.geom_type[geom] in kinds for geom in limbs(model))


def limbs(model: Any) -> list[int]:
    """Geoms that belong to a moving body."""
    return [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] != 0]


def capsule(model: Any, data: Any, geom: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The two ends of a capsule's axis (3,) and its radius, in metres."""
    center, axis = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)[:, 2]
    radius, half = model.geom_size[geom][:2]  # of a sphere, half is 0
    return center - half * axis, center + half * axis, float(radius)


def limb_colors(model: Any) -> dict[int, np.ndarray]:
    """A colour (3,) in 0..1 for each limb: darker towards the feet, the walker's left leg blue."""
    depths = {0: -1}
    for body in range(1, model.nbody):
        depths[body] = depths[int(model.body_parentid[body])] + 1
    deepest = max(*depths.values(), 1)
    colors = {}
    for geom in limbs(model):
        share = depths[int(model.geom_bodyid[geom])] / deepest
        trunk, foot = _LEFT if "left" in model.geom(geom).name else _RIGHT
        colors[geom] = trunk * (1 - share) + foot * share
    return colors


def restyled(model: Any, *, width: int, height: int) -> Any:
    """A copy of the model for drawing: light floor without end, sky, colours, no multisampling."""
    model = copy.deepcopy(model)
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.global_.fovy = FIELD_OF_VIEW
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.48, 0.40
    for texture in range(model.ntex):
        _repaint(model, texture)
    if not (is_planar(model) or is_free(model)):
        return model
    colors = limb_colors(model)
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == 0:
            model.geom_size[geom, :2] = 0.0  # an endless plane: the track is longer than 40 m
            model.geom_rgba[geom] = 1.0
        else:
            model.geom_matid[geom] = -1
            model.geom_rgba[geom] = (*colors[geom], 1.0)
    model.mat_texrepeat[:] = 1.0
    model.mat_texuniform[:] = 1
    model.mat_specular[:] = 0.1
    return model


def _repaint(model: Any, texture: int) -> None:
    """Floor (2D) and sky (skybox) textures in this module's colours, by their brightness."""
    kinds = {0: _FLOOR, 2: _SKY}
    palette = kinds.get(int(model.tex_type[texture]))
    if palette is None:
        return
    first = int(model.tex_adr[texture])
    count = int(model.tex_width[texture]) * int(model.tex_height[texture])
    channels = int(model.tex_nchannel[texture])
    pixels = model.tex_data[first : first + count * channels].reshape(count, channels)
    light = pixels[:, :3].astype(float).mean(axis=1)
    share = ((light - light.min()) / max(np.ptp(light), 1.0))[:, None]
    pixels[:, :3] = np.round(255 * (palette[0] * (1 - share) + palette[1] * share))
