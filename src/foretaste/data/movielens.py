"""MovieLens 100K for the demo: 100,000 ratings of 943 people for 1,682 films, with times and titles.

It is GroupLens' data and lies in no package of ours. It is taken from the wheel of RecBole 1.2.1, an MIT-licensed
library that carries it as an example: the wheel alone is downloaded, by pip, from whatever index pip is set to, and
only two data files are read from it; nothing of it is installed or run. Where pip cannot get it, GroupLens' home page
is asked. What comes from either is checked against the same sum of all ratings, and kept in the cache folder.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from foretaste.data import folders
from foretaste.errors import DataError, SavedFileError

RECBOLE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
IN_WHEEL = "recbole/dataset_example/ml-100k/ml-100k"
HOME_PAGE = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
RATINGS_SHA256 = "6cfffb52c89b05fbc3afb75f6912eeda04c81c2add0dc58e773a0ef6c8adb160"
"""Of all ratings as lines `user <tab> film <tab> rating <tab> time`, sorted as numbers."""
PATIENCE = 20
"""Seconds that a server may take to say anything."""
LARGEST = 32 << 20
"""Bytes that are read of an answer at most; the archive has 5 million."""

FORMAT, VERSION = "foretaste download of MovieLens 100K", 1
RATINGS, FILMS = "ml-100k.csv", "ml-100k.items.csv"
RATINGS_HEAD, FILMS_HEAD = ("user_id", "item_id", "rating", "timestamp"), ("item_id", "title", "year", "category")
SIZES = {"ratings": 100_000, "people": 943, "films": 1682}

BROKEN = (zipfile.BadZipFile, zlib.error, http.client.HTTPException, NotImplementedError)
"""What a damaged archive or a broken-off answer raises."""

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""GroupLens' flags, in their order."""

TERMS = """MovieLens 100K is GroupLens' data (University of Minnesota), for research: do not pass it on, ask GroupLens
before any commercial use, do not suggest that they endorse you, and cite F. M. Harper and J. A. Konstan, "The MovieLens
Datasets: History and Context", ACM TiiS 5(4), 2015. Full terms: grouplens.org/datasets/movielens/100k"""

Rating = tuple[int, int, int, int]
Film = tuple[int, str, str, str]


def movielens_100k(cache: Path | None = None) -> Path:
    """The folder that holds the ratings (ml-100k.csv) and the films (ml-100k.items.csv); downloaded once.

    `cache`: by default the environment's FORETASTE_CACHE, or `foretaste` in the user's cache folder. GroupLens' terms
    are printed to standard error. Raises DataError in one sentence where the data is not to be had.
    """
    print(TERMS, file=sys.stderr)
    folder = (cache or cache_folder()) / "ml-100k"
    if _whole(folder):
        return folder
    failures = []
    for source, fetch in (("pip", _through_pip), (HOME_PAGE, _from_home_page)):
        try:
            ratings, films = fetch()
            _check(ratings, films)
        except (DataError, OSError, ValueError, LookupError, *BROKEN) as error:
            failures.append(f"{source}: {_one_line(error)}")
        else:
            _write(folder, ratings, films, source)
            return folder
    raise DataError(f"MovieLens 100K is not to be had: {'; '.join(failures)}")


def cache_folder() -> Path:
    """Where downloads are kept."""
    chosen = os.environ.get("FORETASTE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "foretaste"


def _through_pip() -> tuple[list[Rating], list[Film]]:
    with tempfile.TemporaryDirectory(prefix="foretaste-") as made:
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", str(PATIENCE))
        pip = (sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--only-binary=:all:", "--dest", made)
        try:
            done = subprocess.run([*pip, RECBOLE], capture_output=True, text=True, timeout=6 * PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"no answer within {6 * PATIENCE} seconds") from None
        if done.returncode:
            raise DataError(f"could not download {RECBOLE} ({_last_error(done.stderr)})")
        return read_wheel(Path(made) / WHEEL)


def read_wheel(path: Path) -> tuple[list[Rating], list[Film]]:
    """Ratings and films from RecBole's wheel, if it is the one that is meant."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise DataError(f"{path.name} has the SHA-256 {digest[:12]}..., expected {WHEEL_SHA256[:12]}...")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        ratings = archive.read(f"{IN_WHEEL}.inter").decode("utf-8").splitlines()[1:]
        films = archive.read(f"{IN_WHEEL}.item").decode("utf-8").splitlines()[1:]
    return _ratings(ratings), [_film(*line.split("\t")) for line in films if line]


def _from_home_page() -> tuple[list[Rating], list[Film]]:
    with urllib.request.urlopen(HOME_PAGE, timeout=PATIENCE) as answer:
        return read_archive(answer.read(LARGEST))


def read_archive(content: bytes) -> tuple[list[Rating], list[Film]]:
    """Ratings and films from GroupLens' ml-100k.zip; in the wheel's form."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        ratings = archive.read("ml-100k/u.data").decode("ascii").splitlines()
        lines = archive.read("ml-100k/u.item").decode("latin-1").splitlines()
    films = []
    for film, title, _released, _video, _link, *flags in (line.split("|") for line in lines if line):
        genres = " ".join(genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1")
        films.append(_film(film, title, "", genres))
    return _ratings(ratings), films


def _film(film: str, title: str, year: str, genres: str) -> Film:
    """Title and year apart; "(V)" marks a film that was only sold as a video."""
    named = re.fullmatch(r"(.*?)\s*\((\d{4})\)(\s*\(V\))?\s*", title)
    title, year = (named[1], named[2]) if named else (title, year if year.isdigit() else "")
    return int(film), "unknown" if title == "unkonwn" else title, year, genres


def _ratings(lines: Iterable[str]) -> list[Rating]:
    """In the order of the file, which breaks ties of time."""
    cells = [line.split("\t") for line in lines if line]
    return [(int(user), int(film), int(float(rating)), int(float(time))) for user, film, rating, time in cells]


def _check(ratings: list[Rating], films: list[Film]) -> None:
    """All that is expected, and nothing else."""
    found = {"ratings": len(ratings), "people": len({rating[0] for rating in ratings}), "films": len(films)}
    if found != SIZES:
        raise DataError(f"holds {_listed(found)}, expected {_listed(SIZES)}")
    lines = "".join(f"{user}\t{film}\t{rating}\t{time}\n" for user, film, rating, time in sorted(ratings))
    if hashlib.sha256(lines.encode()).hexdigest() != RATINGS_SHA256:
        raise DataError("its ratings are not those of MovieLens 100K (their checksum differs)")


def _write(folder: Path, ratings: list[Rating], films: list[Film], source: str) -> None:
    with folders.written_whole(folder) as made:
        for file, head, rows in ((RATINGS, RATINGS_HEAD, ratings), (FILMS, FILMS_HEAD, films)):
            with (made / file).open("w", encoding="utf-8", newline="") as stream:
                table = csv.writer(stream, lineterminator="\n")
                table.writerow(head)
                table.writerows(rows)
        folders.write_manifest(made, {"format": FORMAT, "version": VERSION, "source": source, "terms": TERMS})


def _whole(folder: Path) -> bool:
    """Whether the folder holds what was written there."""
    try:
        folders.read_manifest(folder, FORMAT, VERSION)
    except SavedFileError:
        return False
    return True


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sizes.items())


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
    return errors[-1].removeprefix("ERROR:").strip()


def _one_line(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    said = " ".join(str(reason).split()) or type(error).__name__
    return f"its files are not laid out as expected ({said})" if isinstance(error, ValueError | LookupError) else said
