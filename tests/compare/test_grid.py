"""A comparison as data: what is refused, and what may be added to one that was begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste import EventLog
from foretaste.compare.grid import Grid, Place, Row
from foretaste.compare.publish import fingerprint
from foretaste.data.splits import Ratio
from foretaste.errors import ConfigError, SavedFileError

ONE = Row(name="one", model="pop")
TWO = Row(name="two", model="bpr-mf", settings={"epochs": 2}, trials=3)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="two rows are called 'one'"):
        Grid(title="t", rows=(ONE, ONE))
    with pytest.raises(ConfigError, match="'too' is no row; did you mean 'two'"):
        Grid(title="t", rows=(ONE, TWO), reference="too")
    with pytest.raises(ConfigError, match="not both"):
        Row(name="x", model="pop", tries=({"a": 1},), trials=2)
    with pytest.raises(ConfigError, match="at least one row"):
        Grid(title="t", rows=())
    for cutoffs in ((0,), (10, -1), ()):
        with pytest.raises(ConfigError, match="'cutoffs"):
            Grid(title="t", rows=(ONE,), cutoffs=cutoffs)
    with pytest.raises(ConfigError, match="'name'"):
        Row(name="../away", model="pop")
    for name in (".", "..", 70 * "雪"):  # of three bytes each
        with pytest.raises(ConfigError, match="is a file name too"):
            Row(name=name, model="pop")
    with pytest.raises(ConfigError, match="unknown key 'mdel'"):
        Row.of({"name": "x", "mdel": "pop"})


def test_rows_and_seeds_are_added_and_the_questions_stay(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.begin(Grid(title="t", rows=(ONE,), seeds=(0, 1), data="log"))
    joined = place.begin(Grid(title="t", rows=(TWO,), seeds=(1, 2), data="log"))
    assert [row.name for row in joined.rows] == ["one", "two"]
    assert joined.seeds == (0, 1, 2)
    assert place.grid() == joined
    assert place.begin(joined.with_(reference="one")).reference == "one"
    assert place.begin(Grid(title="t", rows=(TWO,), data="log")).reference == "one"
    with pytest.raises(ConfigError, match=r"begun with ask = 'per-step', not 'product'"):
        place.begin(Grid(title="t", rows=(ONE,), ask="product", data="log"))
    with pytest.raises(ConfigError, match=r"begun with data = 'log', not 'other'"):
        place.begin(Grid(title="t", rows=(ONE,), data="other"))
    other = TWO.model_copy(update={"trials": 5})
    assert place.begin(Grid(title="t", rows=(other,), data="log")).row("two").trials == 5  # nothing is there of it yet
    place.begin(Grid(title="t", rows=(TWO,), data="log"))
    place.run("two", 1).mkdir(parents=True)
    with pytest.raises(ConfigError, match="row 'two' was begun with other settings or another budget"):
        place.begin(Grid(title="t", rows=(TWO.with_(trials=4),), data="log"))
    assert place.begin(Grid(title="t", rows=(TWO.with_(published="0.5"),), data="log")).row("two").published == "0.5"


def test_a_log_is_the_same_if_all_of_it_is(tmp_path: Path) -> None:
    """The same items in the same parts, cut into other sessions, are another log."""
    events = {"item": [1, 2, 1, 2, 1, 2, 1, 2], "time": [1_700_000_000 + 900 * n for n in range(8)], "user": ["u"] * 8}
    log = EventLog.read(events, user="user", item="item", time="time")
    cut = [log.sessions(gap=gap).prepare(Ratio(train=0.5)) for gap in ("10m", "1h")]
    one, other = map(fingerprint, cut)
    assert one == fingerprint(log.sessions(gap="10m").prepare(Ratio(train=0.5)))
    assert one != other
    assert one.partition("-")[0] == other.partition("-")[0]
    place = Place(tmp_path)
    place.begin(Grid(title="t", rows=(ONE,), data=one.partition("-")[0]))  # as earlier versions began it
    with pytest.raises(ConfigError, match="begun with data"):
        place.begin(Grid(title="t", rows=(TWO,), data="another-log"))
    assert place.begin(Grid(title="t", rows=(TWO,), data=one)).data == one
    with pytest.raises(ConfigError, match="begun with data"):
        place.begin(Grid(title="t", rows=(ONE,), data=other))


def test_a_folder_without_a_comparison_and_a_broken_cell(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(SavedFileError, match="no comparison was begun here"):
        place.grid()
    place.cell("one", 0).parent.mkdir()
    place.cell("one", 0).write_text('{"half":')
    with pytest.raises(SavedFileError, match="not a finished cell"):
        place.read("one", 0)
    assert place.read("one", 1) is None
