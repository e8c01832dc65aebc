"""Writing so that a reader finds the old thing or the new one, never half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretaste.errors import SavedFileError


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder to fill; when the block ends well it takes the place of `folder`, otherwise it is removed.

    A folder of the same name is only replaced if it is empty or was written by Foretaste (it holds a manifest).
    """
    folder = folder.absolute()
    if folder.exists() and not _ours(folder):
        raise SavedFileError(f"{folder}: is there and was not written by Foretaste; choose another folder")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        temporary.chmod(0o755)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync(path)
        old = temporary.with_suffix(".old")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise SavedFileError(
            f"{folder}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """A text file, replaced in one move."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SavedFileError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error


def _ours(folder: Path) -> bool:
    return folder.is_dir() and (
        not any(folder.iterdir()) or any((folder / name).exists() for name in ("manifest.json", "recommender.json"))
    )


def _sync(path: Path) -> None:
    """Ask the system to put a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
