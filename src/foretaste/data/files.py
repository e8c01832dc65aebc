"""Writing one file so that a reader finds the old one or the new one, never half of one. Folders: see folders.py."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from foretaste.errors import SavedFileError


def write_text(path: Path, text: str) -> None:
    """A text file, replaced in one move."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise SavedFileError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from None
