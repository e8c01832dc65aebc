"""How a user's record lies in a store: version (8 bytes), time of the last write (4), checksum (4), the record itself.

The checksum covers all of it and the key, so a value that was cut, changed or moved to another user is never loaded.
A base lies behind a checksum of its own.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib

from foretaste.errors import DamagedRecordError, StoreError

Bytes = bytes | memoryview

FORMAT, FORMAT_VERSION = "foretaste-store", 1
"""What a store says it is; a store of a later version is refused."""
VERSION = 8
"""Bytes of a version."""
HEAD = struct.Struct(">8sII")
CHECK = struct.Struct(">I")
LAST = 2**32 - 1
TEXT, DIGEST = b"t", b"d"
"""First byte of a key where keys are short: the user's text follows, or its digest."""
LONGEST = 400
"""Bytes of a user's text that stand in such a key (LMDB takes 511). A longer text stands before the record instead."""


def new_version() -> bytes:
    """A version that no other write has."""
    return os.urandom(VERSION)


def pack(key: bytes, touched: float, record: bytes, version: bytes | None = None) -> bytes:
    """The value of a record written at `touched`, seconds since 1970, as a new version unless it is given."""
    version = new_version() if version is None else version
    when = min(max(int(touched), 0), LAST)
    return HEAD.pack(version, when, _check(key, version, when, record)) + record


def unpack(key: bytes, value: Bytes) -> tuple[bytes, int, bytes] | None:
    """Version, time of the last write and record; None if the value is damaged."""
    if len(value) < HEAD.size:
        return None
    version, touched, check = HEAD.unpack_from(value)
    record = bytes(value[HEAD.size :])
    return (version, touched, record) if check == _check(key, version, touched, record) else None


def touched_at(value: Bytes) -> int:
    """When a value was last written, by its head alone; a value too short to say: never old."""
    return LAST if len(value) < HEAD.size else int(HEAD.unpack_from(value)[1])


def pack_base(key: bytes, base: bytes) -> bytes:
    """The value of a base."""
    return CHECK.pack(zlib.crc32(base, zlib.crc32(key))) + base


def unpack_base(key: bytes, value: Bytes) -> bytes | None:
    """The base; None if the value is damaged."""
    base = bytes(value[CHECK.size :])
    right = len(value) >= CHECK.size and CHECK.unpack_from(value)[0] == zlib.crc32(base, zlib.crc32(key))
    return base if right else None


def text_of(user: str) -> bytes:
    """A user's text as bytes. Any text will do, also half a surrogate pair, as JSON may hold it."""
    return user.encode("utf-8", "surrogatepass")


def user_of(text: bytes) -> str:
    """The user again."""
    return text.decode("utf-8", "surrogatepass")


def key_of(user: str) -> bytes:
    """The user's key where keys are short."""
    text = text_of(user)
    return TEXT + text if len(text) <= LONGEST else DIGEST + hashlib.blake2b(text, digest_size=32).digest()


def payload_of(key: bytes, user: str, record: bytes) -> bytes:
    """The record, behind the user's text if the key has only its digest."""
    if key[:1] == TEXT:
        return record
    text = text_of(user)
    return len(text).to_bytes(4, "big") + text + record


def record_of(key: bytes, payload: bytes) -> bytes:
    """The record of a payload."""
    return payload if key[:1] == TEXT else payload[4 + int.from_bytes(payload[:4], "big") :]


def name_of(key: bytes, value: Bytes) -> str:
    """The user of a key and its value; where a long text was damaged, what can be read of it."""
    if key[:1] == TEXT:
        return user_of(key[1:])
    payload = bytes(value[HEAD.size :])
    return payload[4 : 4 + int.from_bytes(payload[:4], "big")].decode("utf-8", "replace")


def damaged(place: str, user: str, what: str = "record") -> DamagedRecordError:
    """The error of a value that is not what was written."""
    return DamagedRecordError(
        f"{place}: the {what} of user {user!r} is damaged (its checksum differs) and was not loaded; forget this user "
        f"with `foretaste store forget`, or import an earlier export",
        user,
    )


def check_format(place: str, found: object) -> None:
    """Refuse what a store says of itself if this Foretaste cannot read it."""
    kind = found.get("format") if isinstance(found, dict) else None
    version = found.get("version") if isinstance(found, dict) else None
    if kind != FORMAT:
        raise StoreError(f"{place}: holds something that is no store of Foretaste; give another place")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise StoreError(
            f"{place}: a store of format version {version!r}, and this Foretaste reads up to {FORMAT_VERSION}; "
            "upgrade Foretaste, or export the store with the version that wrote it"
        )


def _check(key: bytes, version: bytes, touched: int, record: bytes) -> int:
    return zlib.crc32(record, zlib.crc32(version + touched.to_bytes(4, "big"), zlib.crc32(key)))
