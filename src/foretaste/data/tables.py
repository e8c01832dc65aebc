"""Tables in memory, made into something that DuckDB reads without pyarrow: pandas, Polars, Arrow, NumPy arrays.

A column of Python objects has no type. It is given one here: all text is text; all whole numbers are integers; numbers
are floats; datetimes are datetimes in UTC; anything mixed is text, in which a whole float is written like an integer.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import DataError

if TYPE_CHECKING:
    from foretaste.data.workspace import Workspace


def is_table(source: Any) -> bool:
    """Whether `source` is a pandas, Polars or Arrow table."""
    return type(source).__module__.split(".")[0] in ("pandas", "polars", "pyarrow")


def frame_of(source: Any, wanted: set[str] | None, workspace: Workspace) -> tuple[Any, Path | None]:
    """Of the wanted columns (None: of all) what DuckDB can read in place, or the Parquet file that Polars wrote for it:
    exact, and needs no pyarrow."""
    package = type(source).__module__.split(".")[0]
    if package == "pyarrow":
        return source, None
    frame = source.collect() if hasattr(source, "collect") else source
    if not hasattr(frame, "columns"):
        raise DataError(f"cannot read a log from a {package} {type(source).__name__}; give a DataFrame")
    names = [str(column) for column in frame.columns]
    wanted = set(names) if wanted is None else wanted
    twice = sorted({column for column in names if names.count(column) > 1 and column in wanted})
    if twice:
        raise DataError(f"the table has the column '{twice[0]}' twice; rename one of them")
    used = [column for column in frame.columns if str(column) in wanted]
    frame = frame[used] if len(used) == len(wanted) else frame.head(0)  # a column is missing: the caller will say which
    if package == "polars":
        path = workspace.folder / f"{workspace.new_name('polars')}.parquet"
        frame.write_parquet(path)
        return None, path
    frame = frame.rename(columns=str)
    for column in [column for column in frame.columns if frame[column].dtype == object]:
        values = tidy(frame[column].to_numpy(), column)
        masked = isinstance(values, np.ma.MaskedArray)
        frame = frame.assign(**{column: frame[column].astype("Int64") if masked else values})
    return frame, None


def arrays_of(source: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a dictionary, of types and shapes that DuckDB reads."""
    arrays = {str(column): tidy(np.ma.asarray(values), str(column)) for column, values in source.items()}
    if not arrays:
        raise DataError("the table is empty: the dictionary has no columns")
    lengths = {column: len(values) for column, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of the table differ in length: {lengths}")
    return arrays


def tidy(values: NDArray[Any], column: str) -> NDArray[Any]:
    """One column as an array of a type that DuckDB knows; see the module's first lines for objects."""
    if values.ndim != 1:
        raise DataError(f"column '{column}' has the shape {values.shape}; expected one value a row")
    kind = values.dtype.kind
    if kind in "OUTS":
        plain = np.ma.filled(values.astype(object), None)
        return _objects(plain)
    if kind == "M":
        unit = np.datetime_data(values.dtype)[0]
        values = np.ma.filled(values, np.datetime64("NaT"))
        return values if unit in ("s", "ms", "us", "ns") else values.astype("datetime64[us]")
    if kind not in "biuf" or values.dtype.itemsize > 8:
        raise DataError(f"column '{column}' holds {values.dtype} values; expected text, numbers or times")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values if np.ma.is_masked(values) else np.ma.getdata(values)


def _objects(values: NDArray[Any]) -> NDArray[Any]:
    gone = np.fromiter((_is_missing(value) for value in values), bool, len(values))
    there = values[~gone]
    kinds = {type(value) for value in there}

    def all_of(*types: type) -> bool:
        return all(issubclass(kind, types) and not issubclass(kind, bool) for kind in kinds)

    if not kinds:
        return np.full(len(values), np.nan)
    if not all_of(str):
        if all_of(int, np.integer) and all(-(2**63) <= value < 2**63 for value in there):
            whole = np.zeros(len(values), np.int64)
            whole[~gone] = there
            return np.ma.MaskedArray(whole, mask=gone) if gone.any() else whole
        exact = not any(isinstance(value, int | np.integer) and abs(int(value)) > 2**53 for value in there)
        if exact and all_of(int, float, np.integer, np.floating) and not all_of(int, np.integer):
            floats = np.full(len(values), np.nan)
            floats[~gone] = there
            return floats
        if all_of(datetime.date, np.datetime64):
            moments = np.full(len(values), np.datetime64("NaT"), "datetime64[us]")
            moments[~gone] = [np.datetime64(_in_utc(value), "us") for value in there]
            return moments
    texts = np.full(len(values), None, object)
    texts[~gone] = [_as_text(value) for value in there]
    return texts


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float | np.floating | np.datetime64) and value != value)
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:  # as DuckDB writes it
            plain = {one for one in range(32, 127) if chr(one) not in "\\'\""}
            return "".join(chr(one) if one in plain else f"\\x{one:02X}" for one in value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
