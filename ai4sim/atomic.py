"""Files that are either whole or not there, and folders in which one process works at a time."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp

logger = logging.getLogger(__name__)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends without an error.

    The temporary file keeps the suffix, by which writers choose a format. Missing parent folders are made.
    After an error the temporary file is removed and what was at `path` before is still there.

    Args:
        path: the file to write.

    Yields:
        Path of the temporary file.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes files for the owner alone; a result is as readable as any other file of the user
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Let one process at a time work in a folder, which is made; others wait, with a note in the log.

    Args:
        folder: holds the lock; the process that works may remove it in the end.
        what: is being made, for the note.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            _wait_for(lock.fileno(), what)
            try:
                current = (folder / "lock").stat().st_ino == os.fstat(lock.fileno()).st_ino
            except FileNotFoundError:
                current = False
            # otherwise the process that was waited for has removed the folder
            if current:
                yield
                return


def _wait_for(lock: int, what: str) -> None:
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process is making %s: waiting for it to end", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        logger.warning("this file system has no locks: see that no other process makes %s now", what)
