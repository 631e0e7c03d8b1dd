"""HDF5, opened as if a stranger had written it: the one file of the project that imports h5py.

HDF5 can name other files (external and soft links, external storage, virtual datasets), load
plug-ins (filters) and declare shapes that no disk holds. Each is refused before a byte is read
(Keras' CVE-2026-1669 is of this class). h5py's low-level calls are used where an episode costs
several of them: a dataset of 10,000 episodes opens in seconds.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trajlm.core.errors import DataError, TrajlmError

MAGIC = b"\x89HDF\r\n\x1a\n"
# gzip, shuffle, fletcher32, lzf: what h5py carries itself. Any other filter loads a plug-in.
KNOWN_FILTERS = {1, 2, 3, 32000}
BUDGET_BYTES = 64 * 2**30
# Gymnasium data compresses by 1.1 to 20; constant columns by 1,000.
MAX_RATIO, RATIO_FREE_BYTES = 300, 256 * 2**20
LOCK_RETRIES, LOCK_WAIT_S = 3, 0.4


def require_h5py() -> Any:
    """The module h5py. Raises `DataError` with the line to install it."""
    try:
        import h5py
    except ImportError:
        raise DataError('HDF5 needs h5py: pip install "trajlm[data]"') from None
    return h5py


def is_hdf5(path: Path) -> bool:
    """True where the file starts with HDF5's magic bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def faults_as_data_errors(path: Path) -> Iterator[None]:
    """Turns whatever h5py raises on a damaged file into one line that names it."""
    try:
        yield
    except TrajlmError:
        raise
    except MemoryError:
        raise DataError(f"{path}: damaged HDF5, it asks for more memory than there is") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, ArithmeticError) as error:
        cause = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(f"{path}: damaged HDF5, fetch it again ({cause})") from None


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5]:
    """The file, for reading. Waits shortly where a writer holds it. Raises `DataError`."""
    h5py = require_h5py()
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; fetch it again")
    if not is_hdf5(path):
        raise DataError(f"{path}: no HDF5 file (its first bytes are not HDF5's)")
    with faults_as_data_errors(path):
        file = _open_past_locks(h5py, path)
        try:
            yield Hdf5(file, path)
        finally:
            file.close()


def _open_past_locks(h5py: Any, path: Path) -> Any:
    for attempt in range(LOCK_RETRIES):
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES) or "lock" not in str(error):
                raise
            if attempt + 1 < LOCK_RETRIES:
                time.sleep(LOCK_WAIT_S)
    raise DataError(f"{path}: another process is writing this file; try again when it is done")


class Source(NamedTuple):
    """A dataset of a file that passed the checks, its shape and dtype as declared."""

    id: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Hdf5:
    """An open file, its size budget, and checked access to groups and datasets."""

    def __init__(self, file: Any, path: Path) -> None:
        self._h5py = require_h5py()
        self._file = file
        self._declared = 0
        self._file_bytes = path.stat().st_size
        self.path = path
        self.root = file.id
        self._everything = self._h5py.h5s.ALL

    def members(self, group: Any, *, where: str = "") -> list[str]:
        """Names in a group. Raises `DataError` at a link that leaves it."""
        names: list[str] = []
        foreign: list[str] = []
        hard = self._h5py.h5l.TYPE_HARD

        def visit(name: bytes, info: Any) -> None:
            (names if info.type == hard else foreign).append(name.decode("utf-8", "replace"))

        group.links.iterate(visit, info=True)
        if foreign:
            raise DataError(
                f"{self.path}: {where}{foreign[0]} is a soft or external link; links are not "
                f"followed. Copy the data into the file (h5repack, or h5py's Group.copy)"
            )
        return names

    def group(self, parent: Any, name: str, *, where: str = "") -> Any:
        """The sub-group. The caller has checked its link with `members`."""
        try:
            return self._h5py.h5g.open(parent, name.encode())
        except (KeyError, ValueError, TypeError, RuntimeError):
            raise DataError(f"{self.path}: {where}{name} is no group") from None

    def is_group(self, parent: Any, name: str) -> bool:
        return bool(
            self._h5py.h5o.get_info(parent, name.encode()).type == self._h5py.h5o.TYPE_GROUP
        )

    def dataset(self, parent: Any, name: str, *, where: str = "") -> Source:
        """The dataset, once its storage, filters, kind and size are known to be harmless."""
        h5d = self._h5py.h5d
        try:
            dataset = h5d.open(parent, name.encode())
        except (KeyError, ValueError, TypeError, RuntimeError):
            raise DataError(f"{self.path}: {where}{name} is no dataset") from None
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL:
            raise DataError(f"{self.path}: {where}{name} is a virtual dataset; it is not followed")
        if layout == h5d.CONTIGUOUS and plist.get_external_count():
            raise DataError(f"{self.path}: {where}{name} is stored in another file; refused")
        for number in range(plist.get_nfilters() if layout == h5d.CHUNKED else 0):
            code = plist.get_filter(number)[0]
            if code not in KNOWN_FILTERS:
                raise DataError(
                    f"{self.path}: {where}{name} needs the HDF5 filter {code}; repack with "
                    f"h5repack -f GZIP=4"
                )
        source = Source(id=dataset, shape=dataset.shape, dtype=dataset.dtype)
        if source.dtype.kind not in "fiub":
            raise DataError(f"{self.path}: {where}{name} holds {source.dtype}, not numbers")
        self._spend(source, where + name)
        return source

    def shape(self, parent: Any, name: str) -> tuple[int, ...] | None:
        """The declared shape of a dataset of any kind; None for what is no dataset."""
        try:
            shape: tuple[int, ...] = self._h5py.h5d.open(parent, name.encode()).shape
        except (KeyError, ValueError, TypeError, RuntimeError):
            return None
        return shape

    def _spend(self, source: Source, name: str) -> None:
        """Adds the declared size; refuses what is past the budget or cannot be in the file."""
        self._declared += source.dtype.itemsize * math.prod(source.shape)
        if self._declared > BUDGET_BYTES:
            raise DataError(
                f"{self.path}: {name} declares shape {source.shape}; with it the file asks for "
                f"{self._declared / 2**30:.0f} GiB, above the budget of {BUDGET_BYTES >> 30} GiB"
            )
        if self._declared > RATIO_FREE_BYTES + MAX_RATIO * self._file_bytes:
            raise DataError(
                f"{self.path}: {name} declares shape {source.shape}, {self._declared} bytes in "
                f"a file of {self._file_bytes}: no honest compression does that"
            )

    def read(self, source: Source, dtype: np.dtype[Any] | type | None = None) -> np.ndarray:
        """All of a dataset, in the file's dtype or as `dtype`."""
        wanted = np.dtype(source.dtype if dtype is None else dtype)
        # HDF5 converts numbers itself; NumPy must where one side is bool (an HDF5 enumeration).
        through = wanted if wanted.kind != "b" and source.dtype.kind != "b" else source.dtype
        array = np.empty(source.shape, through.newbyteorder("="))
        self.read_into(source, array)
        return array.astype(wanted, copy=False)

    def read_into(self, source: Source, array: np.ndarray) -> None:
        """The dataset's rows into a C-contiguous array of its shape; numbers are converted."""
        if array.size:
            source.id.read(self._everything, self._everything, array)

    def attribute(self, owner: Any, name: str) -> Any:
        """A scalar number attribute of a group, None where there is none."""
        h5a = self._h5py.h5a
        if not h5a.exists(owner, name.encode()):
            return None
        attribute = h5a.open(owner, name.encode())
        if attribute.shape != () or attribute.dtype.kind not in "fiub":
            return None
        value = np.empty((), attribute.dtype.newbyteorder("="))
        attribute.read(value)
        return value[()]

    def root_attribute(self, name: str) -> Any:
        """An attribute of the file itself, of any kind, None where absent."""
        return self._file.attrs.get(name)

    def text(self, parent: Any, name: str) -> str | None:
        """A scalar string dataset, None where it is something else."""
        dataset = self._h5py.h5d.open(parent, name.encode())
        if dataset.shape != () or dataset.dtype.kind not in "OS":
            return None
        value = self._h5py.Dataset(dataset)[()]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


class Writer:
    """A new file of many small datasets, written with low-level calls: four times as fast as
    h5py's own `create_dataset` where an episode is short."""

    def __init__(self, path: Path) -> None:
        self._h5py = require_h5py()
        self._file = self._h5py.File(path, "w")
        self._scalar = self._h5py.h5s.create(self._h5py.h5s.SCALAR)
        # Without times of writing, equal data is an equal file: its hash names it in results.
        self._timeless = self._h5py.h5p.create(self._h5py.h5p.DATASET_CREATE)
        self._timeless.set_obj_track_times(False)
        self._types: dict[np.dtype[Any], Any] = {}
        self.root = self._file.id

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def group(self, parent: Any, name: str) -> Any:
        return self._h5py.h5g.create(parent, name.encode())

    def dataset(self, parent: Any, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        kind = self._type(array.dtype)
        space = self._h5py.h5s.create_simple(array.shape)
        dataset = self._h5py.h5d.create(parent, name.encode(), kind, space, self._timeless)
        if array.size:
            everything = self._h5py.h5s.ALL
            dataset.write(everything, everything, array, mtype=kind)

    def integer(self, owner: Any, name: str, value: int) -> None:
        """An attribute."""
        kind = self._type(np.dtype(np.int64))
        attribute = self._h5py.h5a.create(owner, name.encode(), kind, self._scalar)
        attribute.write(np.array(value, np.int64))

    def _type(self, dtype: np.dtype[Any]) -> Any:
        if dtype not in self._types:
            self._types[dtype] = self._h5py.h5t.py_create(dtype, logical=True)
        return self._types[dtype]
