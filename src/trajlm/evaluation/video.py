"""A video of a policy at work: mp4 where ffmpeg is at hand, else GIF; drawn where GL is missing.

A video is an extra: whatever is missing for it is named with the line that installs it, and the
evaluation goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajlm.core.errors import StorageError
from trajlm.core.protocols import Condition, Policy
from trajlm.envs.make import make_vector
from trajlm.envs.vector import VectorEnvironment
from trajlm.evaluation.drawing import Caption, PlanarRenderer, write_caption
from trajlm.evaluation.rendering import (
    GL_PACKAGES,
    EglRenderer,
    Renderer,
    egl_fault,
    is_planar,
)

logger = logging.getLogger(__name__)

PIP_LINE = 'pip install "trajlm[video]"'
_GIF_FRAMES, _GIF_WIDTH, _GIF_COLORS = 160, 400, 48


def record(
    policy: Policy,
    *,
    env_id: str,
    target: float | Sequence[float] | None,
    seed: int,
    path: Path,
    size: tuple[int, int] = (480, 270),
    max_steps: int = 1000,
    gl: bool | None = None,
) -> Path | None:
    """Film an episode; the path written (its suffix says mp4 or GIF), None where there is no way.

    Several targets run side by side from the same seed, one lane above the other. `size` is the
    (width, height) of a single lane's picture, several are flatter. `gl` False draws without GL,
    None tries GL first. Raises what the policy and the environment raise, and `StorageError`.
    """
    if importlib.util.find_spec("PIL") is None:
        logger.warning("no video: Pillow is missing; %s", PIP_LINE)
        return None
    targets = tuple(target) if isinstance(target, Sequence) else (target,)
    with contextlib.ExitStack() as stack:
        film = Film.of(policy, env_id=env_id, targets=targets, seed=seed, size=size, gl=gl)
        if film is None:
            return None
        stack.callback(film.close)
        frames = film.frames(max_steps)
        try:
            return write_film(frames, path, frames_per_second=film.frames_per_second)
        except OSError as error:
            raise StorageError(f"{path}: the video cannot be written: {error}") from error


def filmstrip(
    policy: Policy,
    *,
    env_id: str,
    target: float | None,
    seed: int,
    path: Path,
    size: tuple[int, int] = (480, 270),
    columns: int = 3,
    rows: int = 2,
    start: int = 200,
    every: int = 2,
    gl: bool | None = None,
) -> Path | None:
    """Write a PNG of `columns * rows` moments, `every` steps apart from step `start` on."""
    from PIL import Image

    film = Film.of(policy, env_id=env_id, targets=(target,), seed=seed, size=size, gl=gl)
    if film is None:
        return None
    count = columns * rows
    film.stride = every
    try:
        kept = list(itertools.islice(film.frames(start + every * count, first=start), count))
    finally:
        film.close()
    if not kept:
        logger.warning("no picture: the episode ended before step %d", start)
        return None
    kept += [kept[-1]] * (count - len(kept))
    grid = [
        np.concatenate(kept[row * columns : (row + 1) * columns], axis=1) for row in range(rows)
    ]
    Image.fromarray(np.concatenate(grid)).save(path, optimize=True)
    return path


@dataclass
class Film:
    """An episode a lane, as pictures. `stride` steps pass from one picture to the next."""

    policy: Policy
    environment: VectorEnvironment
    renderer: Renderer | None
    targets: tuple[float | None, ...]
    seed: int
    size: tuple[int, int]
    stride: int
    frames_per_second: float

    @classmethod
    def of(
        cls,
        policy: Policy,
        *,
        env_id: str,
        targets: tuple[float | None, ...],
        seed: int,
        size: tuple[int, int],
        gl: bool | None,
    ) -> Film | None:
        """None, with a line in the log, where nothing here can draw the environment."""
        environment = make_vector(env_id, num_envs=len(targets), tolerate_failures=True)
        width, height = size if len(targets) == 1 else (size[0], int(size[1] * 0.6))
        size = (width // 2 * 2, height // 2 * 2)  # video codecs want even sizes
        physics = environment.environments[0].unwrapped
        model = getattr(physics, "model", None)
        if type(model).__name__ == "MjModel":
            renderer = renderer_of(model, size=size, gl=gl)
            if renderer is None:
                environment.close()
                return None
            step_seconds = float(physics.dt)  # type: ignore[attr-defined]
        else:
            environment.close()
            environment = make_vector(
                env_id, num_envs=len(targets), render=True, tolerate_failures=True
            )
            renderer, step_seconds = None, 1 / physics.metadata.get("render_fps", 30)
        # In real time, at no more than some 30 pictures a second.
        stride = max(1, round(1 / (30 * step_seconds)))
        return cls(
            policy=policy,
            environment=environment,
            renderer=renderer,
            targets=targets,
            seed=seed,
            size=size,
            stride=stride,
            frames_per_second=1 / (step_seconds * stride),
        )

    def frames(self, max_steps: int, *, first: int = 0) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 of all lanes until every episode is over, the last one held.

        Those before step `first` are left out.
        """
        count = len(self.targets)
        asked = None if None in self.targets else np.array(self.targets, float)
        condition = None if asked is None else Condition(target_return=asked)
        carry = self.policy.initial(count, condition)
        step = self.environment.reset(seeds=np.full(count, self.seed))
        returns, lengths = np.zeros(count), np.zeros(count, int)
        active = np.array([slot not in self.environment.failures for slot in range(count)])
        notes = ["" if alive else "failed" for alive in active]
        for number in range(max_steps):
            if number >= first and (number - first) % self.stride == 0:
                yield self._picture(returns, lengths, notes)
            carry, actions = self.policy.act(carry, step)
            sound = np.isfinite(actions.reshape(count, -1)).all(axis=1)
            step = self.environment.step(actions, active=active & sound)
            returns[active & sound] += step.reward[active & sound]
            lengths[active & sound] += 1
            broken = ~sound | [slot in self.environment.failures for slot in range(count)]
            for slot in np.flatnonzero(active & (broken | step.terminated)):
                notes[slot] = (
                    "failed" if broken[slot] else f"the episode ended after step {lengths[slot]}"
                )
            active &= ~(broken | step.terminated | step.truncated)
            if not active.any():
                break
        final = self._picture(returns, lengths, notes)
        for _ in range(int(self.frames_per_second)):
            yield final

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
        self.environment.close()

    def _picture(self, returns: np.ndarray, lengths: np.ndarray, notes: list[str]) -> np.ndarray:
        lanes = []
        for slot, environment in enumerate(self.environment.environments):
            physics: Any = environment.unwrapped
            if self.renderer is None:
                picture, distance = _fitted(environment.render(), self.size), None
            else:
                picture = self.renderer.picture(physics.data)
                distance = float(physics.data.qpos[0])
            caption = Caption(
                title=self.environment.env_id,
                asked=self.targets[slot],
                so_far=float(returns[slot]),
                step=int(lengths[slot]),
                distance=distance,
                note=notes[slot],
            )
            lanes.append(write_caption(picture, caption))
        return np.concatenate(lanes)


def renderer_of(model: Any, *, size: tuple[int, int], gl: bool | None) -> Renderer | None:
    """EGL where it works, else the drawing of planar bodies, else None."""
    width, height = size
    fault = "not wanted" if gl is False else egl_fault()
    if fault is None:
        try:
            return EglRenderer(model, width=width, height=height)
        except Exception as error:
            fault = str(error)
    if gl is not False:
        logger.warning("MuJoCo cannot draw through EGL (%s); to have it: %s", fault, GL_PACKAGES)
    if is_planar(model):
        return PlanarRenderer(model, width=width, height=height)
    logger.warning("no video: this body cannot be drawn without GL")
    return None


def _fitted(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """A rendered frame within a picture of `size`, its sides kept in proportion."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(np.asarray(frame)), size, color=(255, 255, 255)))


def write_film(frames: Iterator[np.ndarray], path: Path, *, frames_per_second: float) -> Path:
    """A GIF where the path's suffix says so or ffmpeg is missing, else an mp4; the path written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = path.suffix == ".gif"
    if wanted or importlib.util.find_spec("imageio_ffmpeg") is None:
        if not wanted:
            logger.warning("a GIF instead of an mp4: imageio-ffmpeg is missing; %s", PIP_LINE)
        kept = list(itertools.islice(frames, _GIF_FRAMES))
        return _write_gif(kept, path.with_suffix(".gif"), frames_per_second)
    return _write_mp4(frames, path.with_suffix(".mp4"), frames_per_second)


def _write_mp4(frames: Iterator[np.ndarray], path: Path, frames_per_second: float) -> Path:
    """H.264, written beside and renamed when whole."""
    import imageio_ffmpeg

    partial = path.with_name(f".{path.stem}.tmp.mp4")
    first = next(frames)
    writer = imageio_ffmpeg.write_frames(
        str(partial),
        (first.shape[1], first.shape[0]),
        fps=frames_per_second,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-crf", "27", "-preset", "veryfast", "-movflags", "+faststart"],
    )
    try:
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write_gif(frames: list[np.ndarray], path: Path, frames_per_second: float) -> Path:
    """Smaller pictures in few colours: GIFs grow large."""
    from PIL import Image

    height, width = frames[0].shape[:2]
    size = (min(width, _GIF_WIDTH), height * min(width, _GIF_WIDTH) // width)
    small = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in frames]
    palette = small[len(small) // 2].quantize(_GIF_COLORS)
    pictures = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in small]
    partial = path.with_name(f".{path.stem}.tmp.gif")
    try:
        pictures[0].save(
            partial,
            save_all=True,
            append_images=pictures[1:],
            duration=max(20, round(1000 / frames_per_second)),
            loop=0,
            optimize=False,
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
