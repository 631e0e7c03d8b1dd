"""One process a run folder."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from pathlib import Path

from trajlm.core.errors import StorageError
from trajlm.core.files import storage_errors

logger = logging.getLogger(__name__)


class RunLock:
    """Holds `FOLDER/.lock` while a run is being written.

    The operating system's lock decides, so that of a killed process is free at once; the process
    id and host in the file are for the message. Raises `StorageError` on entering where another
    process holds it or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._descriptor = -1

    def __enter__(self) -> RunLock:
        with storage_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            owner = os.read(descriptor, 200).decode(errors="replace").strip()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise StorageError(
                    f"{self.path.parent}: in use by {owner or 'another process'}; wait for it, "
                    "or choose another run folder"
                ) from None
            if owner:
                logger.warning("%s: left by %s, which is gone; taken over", self.path, owner)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        # Emptied, not unlinked: a process waiting on the old file would lock a name that is gone.
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
