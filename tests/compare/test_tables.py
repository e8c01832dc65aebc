"""The papers' tables: every file is sound, fits its log, and says what the paper prints; one may be like another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foretaste import Recommender
from foretaste.compare.tables import Table, names, table
from foretaste.data import datasets
from foretaste.data.recipes import DataRecipe
from foretaste.errors import ConfigError
from foretaste.models import MODELS, model_class
from foretaste.words import protocol

DOCS = Path(__file__).resolve().parents[2] / "docs"


def published(name: str, row: str) -> str:
    return table(name).grid().row(row).published


def offered(recipe: DataRecipe) -> set[str]:
    """What models may need and the log of a recipe has (as `Prepared.offers`, without the log)."""
    has = {
        "users": recipe.read.user,
        "times": recipe.read.time,
        "sessions": recipe.read.session or recipe.sessions.gap or recipe.sessions.per or recipe.sessions.events,
        "dwell": "dwell" in recipe.sessions.add,
    }
    return {word for word, there in has.items() if there}


# ------------------------------------------------------------------------------ the tables that come with Foretaste


@pytest.mark.parametrize("name", names())
def test_every_table_is_sound(name: str) -> None:
    wanted = table(name)
    grid = wanted.grid()
    has = offered(datasets.recipe(wanted.data))
    for word in (grid.ask, grid.choose or grid.ask, *grid.also.values()):
        protocol(word)
    for row in grid.rows:
        for change in row.tries or ({},):
            made = Recommender(row.model, **{**row.settings, **change})
            assert made.kind.needs_of(made.config) <= has, row.name
        assert "," not in row.name  # --rows one,two
    assert wanted.why or not any(row.published for row in grid.rows)


def test_the_log_of_every_table_says_where_its_files_are_from() -> None:
    """Or is read from the files as their makers publish them."""
    for name in names():
        log = datasets.recipe(table(name).data)
        ours = any(file.endswith(".parquet") for one in log.files for file in one.file)
        assert log.origin or not ours, log.name


def test_every_log_of_the_papers_has_a_table() -> None:
    papers = [name for name in datasets.recipes() if name.split("-")[0] in ("narm", "rum", "dman", "asars", "lsamn")]
    there = {table(name).data for name in names()}
    # of the same log a table stands under the files that are at hand
    stands_for = {"dman-movielens-1m": "ml-1m-segments", "narm-diginetica": "diginetica",
                  "narm-yoochoose-1_64": "yoochoose1_64", "rum-instant-video": "amazon-instant-video-rum"}  # fmt: skip
    assert [name for name in papers if stands_for.get(name, name) not in there] == []
    assert len(names()) == 42


@pytest.mark.parametrize(
    ("name", "row", "figures"),
    [
        ("narm/yoochoose1_64", "hybrid-100", "68.32 / 28.76"),
        ("narm/yoochoose1_4", "fpmc", "out of memory"),
        ("narm/yoochoose1_4", "sr", ""),
        ("narm/diginetica-unsorted", "local-50", "58.74 / 22.91"),
        ("dman/movielens-1m", "dman", "25.18 / 53.24 / 22.03"),
        ("dman/movielens-1m", "sdm", "23.42 / 51.26 / 20.44"),
        ("dman/jd", "sdm", "40.68 / 55.30 / 34.82"),
        ("dman/taobao", "dman-fifo", "- / 26.3 / 10.8"),
        ("dman/xlong", "dman", "13.2 / 16.3 / 5.4 / 2.2"),
        ("rum/instant-video", "dream", "1.312 / 1.652 / 1.342 / 6.097 / 1.401"),
        ("rum/baby", "rum-feature bce", "1.070 / 0.918 / 0.951 / 5.432 / 1.103"),
        ("asars/movielens-1m", "time_user paper", "2.03 / 10.08"),
        ("asars/movielens-1m", "time_user", ""),  # the paper's is told what no service knows
        ("asars/tianchi", "time_user paper", "6.46 / 20.47"),
        ("asars/asars-ml-100k", "none", "MovieLens-1M: 1.74 / 10.85"),
        ("asars/asars-30music", "none", ""),
        ("dman/jd-last-segment", "gru4rec", "27.65 / 38.73 / 23.40"),
    ],
)
def test_what_the_papers_print_stands_beside_its_row(name: str, row: str, figures: str) -> None:
    assert published(name, row) == figures


def test_a_starred_table_reads_the_last_segment_and_an_unknown_one_is_refused() -> None:
    starred = table("dman/movielens-1m-last-segment").grid()
    assert "latest=20" in starred.ask
    assert starred.row("gru4rec").published == "17.69 / 43.13 / 16.90"
    with pytest.raises(ConfigError, match="did you mean 'rum/instant-video'"):
        table("rum/instantvideo")


def test_figures_are_drawn_at_the_papers_points() -> None:
    curves = table("rum/instant-video-curves").grid()
    curve = [row.settings["alpha"] for row in curves.rows if "alpha" in row.settings]
    assert curve == [n / 10 for n in range(11)] * 4
    assert {row.name for row in curves.rows if row.published} == {
        f"rum-{level} {default}"
        for level in ("item", "feature")
        for default in ("bce alpha 0.2", "slots 20", "merge add")
    }
    assert {table(name).cutoffs for name in names() if name.startswith("asars/")} == {(10, 20, 30, 40)}


def test_tables_of_all_models_try_alike() -> None:
    sessions, users = table("all/yoochoose1_64").grid(), table("all/ml-1m").grid()
    for grid, nothing_to_choose in ((sessions, {"pop", "s-pop"}), (users, {"pop"})):
        tried = {row.name: len(row.tries) for row in grid.rows}
        assert {name for name, count in tried.items() if not count} == nothing_to_choose
        both_betas = {row.name for row in grid.rows if any("beta2" in one for one in row.tries)}
        assert both_betas == ({"sasrec", "sasrec softmax", "gsasrec", "esasrec"} if grid is sessions else set())
        assert {tried[name] for name in both_betas} <= {3}  # of these the first has the paper's beta2
        learns = {row.name for row in grid.rows if model_class(row.model).learns == "gradient"}
        assert {tried[name] for name in learns - both_betas} == {2}
        assert set(tried.values()) == {0, 2, 3}
    assert len(sessions.rows) == 26
    assert len(users.rows) == 26
    assert {row.model for row in (*sessions.rows, *users.rows)} == MODELS.keys() - {"lsamn", "shan", "sdm"}
    assert len(table("narm/diginetica").grid().row("tuned").tries) == 3


# ------------------------------------------------------------------------------ one that is like another


BASE = """
paper = "Nobody, Table 1"
data = "ml-100k"
ask = "per-step"
metric = "recall@5"
show = ["recall@5"]
cutoffs = [5]
why = "chance"
tries = [{ learning_rate = 0.01 }]
[settings]
epochs = 1
batch = 64
[published]
"D 4" = "3 / 4"
[[row]]
name = "pop"
model = "pop"
published = "1 / 2"
[[row]]
name = "markov"
model = "markov"
[[row]]
name = "sr"
model = "sr"
[[sweep]]
name = "D {}"
model = "fmc"
setting = "embedding_size"
values = [4, 8]
"""


def like(folder: Path, text: str, other: str = "base") -> Table:
    """A table that is like BASE, or like another file of the folder."""
    (folder / "base.toml").write_text(BASE)
    (folder / "mine.toml").write_text(f'like = "{folder / other}.toml"\n{text}')
    return table(str(folder / "mine.toml"))


def test_a_table_like_another_says_what_is_different(tmp_path: Path) -> None:
    mine = like(
        tmp_path,
        'data = "ml-1m"\nwithout = ["sr"]\n[settings]\nepochs = 2\n[published]\nmarkov = "5 / 6"\n'
        '[[row]]\nname = "item-knn"\nmodel = "item-knn"\n'
        '[[row]]\nname = "markov"\nmodel = "markov"\nsettings = { last = 3 }\n',
    ).grid()
    assert mine.title == "Nobody, Table 1, on ml-1m"
    assert mine.about == "chance"
    assert [row.name for row in mine.rows] == ["pop", "markov", "item-knn", "D 4", "D 8"]
    assert [row.published for row in mine.rows] == ["", "5 / 6", "", "", ""]
    assert mine.row("markov").settings == {"last": 3}
    assert mine.row("D 4").settings == {"epochs": 2, "embedding_size": 4}
    assert mine.row("D 4").tries == ({"learning_rate": 0.01},)
    base = table(str(tmp_path / "base.toml")).grid()
    assert [row.published for row in base.rows] == ["1 / 2", "", "", "3 / 4", ""]


def test_likeness_may_go_on_but_not_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "between.toml").write_text(f'like = "{tmp_path}/base.toml"\nwithout = ["sr", "D {{}}"]\n')
    assert [row.name for row in like(tmp_path, "", other="between").grid().rows] == ["pop", "markov"]
    with pytest.raises(ConfigError, match=r"no row is called 'sr'; .*Known: pop, markov"):
        like(tmp_path, 'without = ["sr"]\n', other="between")
    with pytest.raises(ConfigError, match="in the end it is like itself"):
        like(tmp_path, "", other="mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('without = ["markow"]\n', "without: no row is called 'markow'; did you mean 'markov'"),
        ('[published]\n"D 5" = "1"\n', "published: no row is called 'D 5'; did you mean 'D "),
        ('[published]\nsr = "1"\n', None),
        ('without = ["sr"]\n[published]\nsr = "1"\n', "published: no row is called 'sr'"),
        ('wihtout = ["sr"]\n', "unknown key 'wihtout'; did you mean 'without'"),
        ('[[row]]\nname = "sr"\nmodel = "sr"\n' * 2, "two rows have one name among sr, sr"),
    ],
)
def test_what_a_table_like_another_gets_wrong_is_refused(tmp_path: Path, text: str, message: str | None) -> None:
    if message is None:
        assert like(tmp_path, text).grid().row("sr").published == "1"
        return
    with pytest.raises(ConfigError, match=re.escape(message)) as found:
        like(tmp_path, text)
    assert "mine.toml" in str(found.value)


def test_rows_are_left_out_of_another_table_alone(tmp_path: Path) -> None:
    (tmp_path / "alone.toml").write_text('without = ["sr"]\n' + BASE)
    with pytest.raises(ConfigError, match="`like` names none"):
        table(str(tmp_path / "alone.toml"))
    (tmp_path / "far.toml").write_text('like = "narm/yoochose1_64"\n')
    with pytest.raises(ConfigError, match="no table is called 'narm/yoochose1_64'; did you mean 'narm/yoochoose1_64'"):
        table(str(tmp_path / "far.toml"))


def test_the_example_of_the_guide_is_a_table(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", (DOCS / "compare.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.toml").write_text(example)
    grid = table(str(tmp_path / "example.toml")).grid()
    assert len(grid.rows) == len(table("narm/yoochoose1_64").grid().rows) - 2
    assert grid.row("vs-knn").tries == ({"k": 500}, {"k": 1000})
    assert [row.name for row in grid.rows if row.published] == ["item-knn"]
