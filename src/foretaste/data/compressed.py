"""Whether a compressed file is whole. DuckDB reads a file that was cut off in transfer up to the cut, and says nothing.

gzip is unpacked once to its end, where its checksum stands (a third of a gigabyte a second). zstd is not known to every
Python that this runs on, so its blocks are only walked through: that finds a cut, not a changed byte.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from foretaste.errors import DataError

KINDS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""By the first bytes of a file."""
OTHERS = {b"PK\x03\x04": "a zip archive or a spreadsheet", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
CHUNK = 1 << 22


def kind_of(path: Path, head: bytes) -> str:
    """ "gzip", "zstd" or "none", in DuckDB's words; an error if it is something else or not whole."""
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: this is {what}; unpack it, or save it as CSV (plain, gzip, zstd) or Parquet")
    kind = next((kind for magic, kind in KINDS.items() if head.startswith(magic)), "none")
    whole = {"gzip": _gzip_is_whole, "zstd": _zstd_is_whole}.get(kind)
    if whole is not None and not whole(path):
        raise DataError(f"{path}: the {kind} file is cut off or damaged; copy or download it again")
    return kind


def _gzip_is_whole(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(CHUNK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return True


def _zstd_is_whole(path: Path) -> bool:
    """Walk through frames and blocks (RFC 8878, section 3.1)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            magic = file.read(4)
            if magic[1:] == b"\x2a\x4d\x18":  # a frame to skip
                file.seek(int.from_bytes(file.read(4), "little"), 1)
            elif magic in KINDS and _skip_frame(file, size):
                continue
            else:
                return False
        return file.tell() == size


def _skip_frame(file: BinaryIO, size: int) -> bool:
    described = file.read(1)
    if not described:
        return False
    flags = described[0]
    single = flags >> 5 & 1
    content_size = (single, 2, 4, 8)[flags >> 6]
    file.seek((1 - single) + (0, 1, 2, 4)[flags & 3] + content_size, 1)
    last = 0
    while not last:
        header = file.read(3)
        if len(header) < 3:
            return False
        block = int.from_bytes(header, "little")
        last = block & 1
        file.seek(1 if block >> 1 & 3 == 1 else block >> 3, 1)
    file.seek(4 * (flags >> 2 & 1), 1)
    return file.tell() <= size
