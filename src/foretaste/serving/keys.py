"""Who may ask what: bearer keys with a role each, from a TOML file or the environment. Only their hashes are kept.

    [keys]
    shop = { role = "write", sha256 = "9f86d0..." }

`admin` may what `write` may, and `write` what `read` may. Without any key everybody may everything, and then the
service listens on this machine alone, and answers to this machine's own names alone: a page of another site that has
its name point here (DNS rebinding) is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from foretaste.config import read_toml
from foretaste.errors import ConfigError, nearest
from foretaste.serving.problems import Refused

VARIABLE = "FORETASTE_KEYS"
ROLES = ("read", "write", "admin")
"""From the least to the most."""
SHORTEST = 16
"""Characters of a key: one that can be guessed is none."""
OPEN = frozenset({"/health", "/ready", "/openapi.json", "/page", "/page/page.css", "/page/page.js"})
READ = frozenset({"/", "/recommendations", "/explanations", "/items"})


def needed(method: str, path: str) -> str | None:
    """The role that a request needs; None: anybody's. An address that is not known here needs the most."""
    if path in OPEN:
        return None
    if path == "/events":
        return "write"
    known = path in READ or path.startswith(("/users/", "/items/"))
    return "read" if known and method != "DELETE" else "admin"


class Keys:
    """The keys of a service, as SHA-256 -> role."""

    def __init__(self, roles: Mapping[str, str] | None = None) -> None:
        self.roles = dict(roles or {})

    def __bool__(self) -> bool:
        return bool(self.roles)

    @classmethod
    def found(cls, file: Path | None, environment: Mapping[str, str]) -> Keys:
        """Those of the file and those of the environment variable."""
        roles = {} if file is None else _of_file(file)
        return cls(roles | _of_words(environment.get(VARIABLE, "")))

    def check(self, scope: Mapping[str, Any]) -> None:
        """Refuse a request whose key does not allow it."""
        role = needed(scope["method"], scope["path"])
        if role is None:
            return
        if not self.roles:
            asked = next((value for name, value in scope["headers"] if name == b"host"), b"localhost")
            if not _near(asked):
                raise Refused(403, f"a service without keys answers to localhost, not to {asked.decode('latin-1')!r}; "
                              f"give it --keys FILE or {VARIABLE}=role:key")  # fmt: skip
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = header.partition(b" ")
        shown = hashlib.sha256(key.strip()).hexdigest()
        mine = None
        for known, granted in self.roles.items():  # all of them, so that the time says nothing
            if hmac.compare_digest(known, shown):
                mine = granted
        if mine is None or scheme.lower() != b"bearer":
            what = "this key is not known" if header else "a key is needed, as `Authorization: Bearer KEY`"
            raise Refused(401, what, {"WWW-Authenticate": "Bearer"})
        if ROLES.index(mine) < ROLES.index(role):
            raise Refused(403, f"this needs a key with the role {role}; this one has {mine}")


def check_host(host: str, keys: Keys) -> None:
    """Refuse to listen to other machines without a key."""
    if not keys and not _near(host.encode() if ":" not in host else b"[%b]" % host.encode()):
        raise ConfigError(
            f"host {host}: without a key anybody who reaches this machine could read and forget users; give --keys "
            f"FILE or {VARIABLE}=role:key, or leave the host at 127.0.0.1"
        )


@lru_cache(maxsize=256)
def _near(host: bytes) -> bool:
    """Does `name`, `name:port` or `[address]:port` mean this machine?"""
    name = (host[1:].partition(b"]")[0] if host[:1] == b"[" else host.partition(b":")[0]).decode("latin-1")
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def hashed(key: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _of_file(path: Path) -> dict[str, str]:
    table = read_toml(path).get("keys")
    if not isinstance(table, dict) or not table:
        raise ConfigError(
            f'{path}: no keys; write [keys] and a line such as shop = {{ role = "write", sha256 = "..." }}'
        )
    roles: dict[str, str] = {}
    for name, entry in table.items():
        if not isinstance(entry, dict) or set(entry) != {"role", "sha256"}:
            raise ConfigError(f"{path}: key '{name}' needs role and sha256, and nothing else")
        if not re.fullmatch("[0-9a-fA-F]{64}", str(entry["sha256"])):
            raise ConfigError(f"{path}: key '{name}': sha256 is not 64 hexadecimal digits; see `sha256sum`")
        roles[str(entry["sha256"]).lower()] = _role(str(entry["role"]), f"{path}: key '{name}'")
    return roles


def _of_words(words: str) -> dict[str, str]:
    roles: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        role, colon, key = word.partition(":")
        if not colon or len(key) < SHORTEST:
            raise ConfigError(f"{VARIABLE}: write role:key,role:key; a key has at least {SHORTEST} characters")
        roles[hashed(key)] = _role(role, VARIABLE)
    return roles


def _role(word: str, where: str) -> str:
    if word not in ROLES:
        raise ConfigError(f"{where}: no role is called '{word}'; {nearest(word, ROLES)}")
    return word
