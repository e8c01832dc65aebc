"""Writing one file so that a reader finds the old one or the new one, never half of one. Folders: see folders.py."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import SavedFileError


def write_text(path: Path, text: str) -> None:
    """A text file, replaced in one move."""
    with replaced(path) as file:
        file.write(text)


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Arrays as .npz, compressed and without pickle, replaced in one move."""
    with _replaced(path, "wb", None) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def take_over(path: Path, written: Path) -> None:
    """What another program has written elsewhere, as this file, replaced in one move."""
    with _replaced(path, "wb", None) as file, written.open("rb") as source:
        shutil.copyfileobj(source, file)


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file to write into; it takes the place of `path` when the block ends well, and is gone if it does not."""
    with _replaced(path, "w", "utf-8") as file:
        yield file


@contextmanager
def _replaced(path: Path, mode: str, encoding: str | None) -> Iterator[Any]:
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise SavedFileError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from None


def check_ending(path: Path, *endings: str) -> None:
    """Refuse, before long work, a file that is not named like what is to be written: it may be somebody's log."""
    if path.suffix.lower() not in endings:
        raise SavedFileError(f"{path}: what stands there would be replaced; give a name that ends in {endings[0]}")


def to_disk(path: Path) -> None:
    """What was written to a file or folder is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def meant(path: Path) -> str:
    """End of a message about a file or folder that is not there: what stands beside it under a like name."""
    near = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, near, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
