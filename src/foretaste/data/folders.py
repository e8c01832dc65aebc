"""A saved thing is a folder, and it is there whole or not at all.

Everything is written into a new folder beside the place, brought to the disk, and renamed. Whatever happens before
that (a full disk, a kill, an error), what stood there stands there still.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.data.files import meant, to_disk
from foretaste.errors import SavedFileError

MANIFEST = "manifest.json"
SMALL = 16 * 1024 * 1024
"""Files up to this many bytes are compared with their checksum whenever a folder is opened; larger ones on request."""


@contextlib.contextmanager
def written_whole(folder: Path, manifest: str = MANIFEST) -> Iterator[Path]:
    """A new, empty folder to write into; it takes the place of `folder` when the block ends well.

    A folder that stands there is only replaced if it holds what its `manifest` lists and no more, so nobody's other
    files are lost.
    """
    folder = folder.resolve()
    check_place(folder, manifest)
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".writing", dir=folder.parent))
        made.chmod(0o777 & ~_umask())
        yield made
        for file in made.iterdir():
            file.chmod(0o666 & ~_umask())  # safetensors writes for its owner alone
            to_disk(file)
        to_disk(made)
        _put(made, folder)
    except OSError as error:
        reason = error.strerror or f"{error}; the disk may be full"  # NumPy says how much it could not write
        raise SavedFileError(f"{folder}: could not be written: {reason}; what was there before is untouched") from None
    except SavedFileError as error:  # of a file in it: named by the place that it was meant for
        raise SavedFileError(f"{error}; what was there before is untouched".replace(str(made), str(folder))) from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def check_place(folder: Path, manifest: str = MANIFEST) -> None:
    """Refuse a place in which anything stands that is no part of a saved folder with a `manifest`; ask before long
    work."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ours = _listed(folder / manifest)
    if ours is None:
        raise SavedFileError(f"{folder}: holds something that was not saved from here; give a new or an empty folder")
    others = sorted({file.name for file in folder.iterdir()} - {manifest, *ours})
    if others:
        raise SavedFileError(
            f"{folder}: holds {others[0]!r} beside what was saved from here, which would be lost; move that away, or "
            "give another folder"
        )


def _listed(manifest: Path) -> list[str] | None:
    """The files that a manifest of ours names (that of an early version names none: all); None if it is another's."""
    try:
        said = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(said, dict) and "checksum" in said and isinstance(said.get("files"), dict):
        return list(said["files"])
    early = isinstance(said, dict) and {"format", "foretaste"} <= said.keys() and "files" not in said
    return [file.name for file in manifest.parent.iterdir()] if early else None


def check_free(folder: Path, what: str, manifest: str = MANIFEST, *, replace: bool = False) -> None:
    """As `check_place`, for a command: what was saved there before stays, unless it is asked to replace it."""
    check_place(folder, manifest)
    if not replace and (folder / manifest).exists():
        raise SavedFileError(f"{folder}: {what} is there already; name another folder, or say --replace")


def _put(made: Path, folder: Path) -> None:
    before = folder.with_name(f".{folder.name}.before")
    if folder.exists():
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
    try:
        made.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
    to_disk(folder.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_manifest(folder: Path, manifest: Mapping[str, Any], name: str = MANIFEST) -> None:
    """The manifest, with the size and checksum of every file that lies in the folder, and a checksum of itself."""
    files = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(folder.iterdir())}
    whole = json.loads(json.dumps({**manifest, "files": files}))  # as it will be read
    text = json.dumps({**whole, "checksum": _checksum(whole)}, indent=1, ensure_ascii=False)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def check_files(path: Path, manifest: dict[str, Any], *, verify: bool = False) -> None:
    """Compare what was read from `path` with its checksum, which is taken out, and with the files that lie there."""
    if manifest.pop("checksum", None) != _checksum(manifest):
        raise SavedFileError(f"{path}: was edited (its checksum differs); copy or save it again")
    for name, said in manifest["files"].items():
        _check_file(path.parent / name, said, verify)


def check_interrupted(folder: Path) -> None:
    """Say where the earlier folder is, if a kill came between the two moves by which a new one takes its place."""
    folder = folder.resolve()  # `.` has no name
    before = folder.with_name(f".{folder.name}.before")
    if not folder.exists() and before.exists():
        raise SavedFileError(
            f"{folder}: not there; saving was interrupted, the earlier one is {before}: rename it back"
        )


def read_manifest(folder: Path, kind: str, version: int, *, verify: bool = False) -> dict[str, Any]:
    """The manifest of a folder whose files are all there and as they were written, or one clear error.

    `kind` and `version` are what the manifest must say under "format" and "version" (or an older version).
    """
    check_interrupted(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        near = "" if folder.exists() else meant(folder)
        raise SavedFileError(f"{folder / MANIFEST}: no such file; expected the folder of a {kind}{near}") from None
    except (OSError, ValueError) as error:
        raise SavedFileError(f"{folder / MANIFEST}: cannot be read: {error}; save it again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise SavedFileError(f"{folder / MANIFEST}: its format is {found!r}; expected {kind!r}")
    written = manifest.get("version")
    if not isinstance(written, int) or not 1 <= written <= version:
        raise SavedFileError(f"{folder}: has version {written!r}, and this Foretaste reads up to {version}; upgrade it")
    check_files(folder / MANIFEST, manifest, verify=verify)
    return manifest


def _check_file(file: Path, said: Mapping[str, Any], verify: bool) -> None:
    try:
        size = file.stat().st_size
        if size != said["bytes"]:
            raise SavedFileError(
                f"{file}: has {size} bytes, expected {said['bytes']}: truncated or edited; copy or save it again"
            )
        if (verify or size <= SMALL) and _sha256(file) != said["sha256"]:
            raise SavedFileError(f"{file}: was edited or damaged (its checksum differs); copy or save it again")
    except OSError as error:
        raise SavedFileError(
            f"{file}: {error.strerror or error}; the folder is incomplete: copy or save it again"
        ) from None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def write_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """One array as `name.npy`."""
    np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read_array(folder: Path, name: str, dtype: str | None, length: int | None) -> NDArray[Any]:
    """One array back, memory-mapped, if it is what the manifest promises."""
    file = folder / f"{name}.npy"
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SavedFileError(f"{file}: no such file; the folder is incomplete, save it again") from None
    except (OSError, ValueError) as error:
        raise SavedFileError(f"{file}: cannot be read: {error}; save it again") from None
    right = array.ndim == 1 and (dtype is None or array.dtype == dtype) and length in (None, len(array))
    if not right:
        expected = f"[{'any' if length is None else length}] {dtype or ''}".strip()
        raise SavedFileError(f"{file}: holds {list(array.shape)} {array.dtype}, expected {expected}; save it again")
    return array
