"""The index: exact scores, nearly the whole exact list however deep, whatever is hidden, alike in every batch."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ConfigError, NeedsError, TrainingError
from foretaste.models import model_class
from foretaste.models.choosing import best, hide
from foretaste.models.contract import SequenceModel, seeded
from foretaste.models.saved import Trained
from foretaste.retrieval.approximate import DEPTHS, Approximate, Depth, walks
from foretaste.serving import answering
from foretaste.serving.asks import Ask, Event
from foretaste.serving.engine import Engine
from foretaste.serving.planning import EngineConfig
from foretaste.serving.store import MemoryStore
from tests.battery import every_model, make

ITEMS, SIZE = 6000, 16
ALL = list(range(1, ITEMS + 1))


def clustered(items: int = ITEMS) -> SequenceModel:
    """A model whose items lie in a hundred clusters, which is how trained ones lie."""
    kind = model_class("fmc")
    with seeded(3):
        model = kind(items, kind.Config.of({"embedding_size": SIZE})).eval()
        centres, own = torch.randn(100, SIZE), torch.randint(100, (items,))
        vectors = centres[own] + 0.3 * torch.randn(items, SIZE)  # [I, D]
        for weight in model.parameters():
            weight.data[-items:] = vectors
    return model


def recall(index: Approximate, depth: Depth, asked: torch.Tensor) -> float:
    """Counted again, item by item."""
    with torch.inference_mode():
        exact = index.model.score(asked).topk(depth.size).indices + 1
        found = index.search(asked, depth)
    hits = sum(len(set(e) & set(f)) for e, f in zip(exact.tolist(), found.tolist(), strict=True))
    return hits / exact.numel()


@pytest.fixture(scope="module")
def index() -> Approximate:
    pytest.importorskip("faiss")
    return Approximate(clustered())


@pytest.fixture(scope="module")
def asked(index: Approximate) -> torch.Tensor:
    """Queries after other walks than it was made by."""
    with torch.inference_mode():
        return walks(index.model, seed=7)


def test_what_it_says_of_its_recall_is_so_at_every_depth(index: Approximate, asked: torch.Tensor) -> None:
    assert [depth.size for depth in index.depths] == list(DEPTHS)
    assert index.lists == 128
    with torch.inference_mode():
        own = walks(index.model)
    for depth in index.depths:
        assert depth.recall == pytest.approx(recall(index, depth, own), abs=1e-6)
        assert 0.99 <= depth.recall <= 1
        assert recall(index, depth, asked) > 0.97
    probes = [depth.probes for depth in index.depths]
    assert probes == sorted(probes)
    assert probes[0] < probes[-1] <= 128


def test_the_fewest_lists_that_are_enough(index: Approximate) -> None:
    """More is asked with a higher recall; half as many lists would be too few."""
    strict = Approximate(clustered(), recall=0.9999)
    assert strict.depths[0].probes > index.depths[0].probes
    with torch.inference_mode():
        own = walks(index.model)
    for depth in index.depths:
        fewer = Depth(depth.size, depth.probes // 2, 0.0)
        assert depth.probes == 1 or recall(index, fewer, own) < 0.99


def test_candidates_stand_in_order_and_have_their_exact_scores(index: Approximate, asked: torch.Tensor) -> None:
    for depth in index.depths:
        with torch.inference_mode():
            some = asked[:50]
            found = index.search(some, depth)
            assert found.shape == (50, max(200, 4 * depth.size))
            assert ((found[:, 1:] > found[:, :-1]) | (found[:, :-1] == 0)).all()
            whole, real = index.model.score(some), found > 0  # [50, I], [50, F]
            exact = whole.gather(1, (found - 1).clamp(min=0))
            assert torch.allclose(index.score(some[:, None], found)[real], exact[real], atol=1e-5)
            assert index.score(some[:, None], found)[~real].isneginf().all()
            assert torch.equal(index.score(some[:, None]), whole)
            one_by_one = torch.cat([index.search(some[i : i + 1], depth) for i in range(50)])
        assert torch.equal(found, one_by_one)


def test_the_same_weights_give_the_same_index(index: Approximate, asked: torch.Tensor) -> None:
    again = Approximate(clustered())
    assert again.depths == index.depths
    assert torch.equal(index.search(asked, index.depths[1]), again.search(asked, index.depths[1]))


def test_a_bias_is_part_of_the_product() -> None:
    pytest.importorskip("faiss")
    model = clustered()
    bias = 3 * torch.randn(ITEMS, generator=torch.Generator().manual_seed(0))
    model.item_bias = lambda: bias  # type: ignore[method-assign]
    index = Approximate(model)
    with torch.inference_mode():
        asked = walks(model, seed=4)[:40]
        whole, found = model.score(asked), index.search(asked, index.depths[0])
        real, exact = found > 0, whole.gather(1, (found - 1).clamp(min=0))
        assert torch.allclose(index.score(asked[:, None], found)[real], exact[real], atol=1e-5)
    assert recall(index, index.depths[0], asked) > 0.97


@every_model
def test_every_model_with_one_inner_product_has_one(name: str, variant: dict[str, object]) -> None:
    """A catalogue smaller than the candidates is scored exactly; models that score in their own way are refused."""
    pytest.importorskip("faiss")
    model = make(name, variant).float()
    if type(model).score is not SequenceModel.score:
        with pytest.raises(NeedsError, match=r"no index can be made for .*; score every item"):
            Approximate(model)
        return
    if not model.causal:  # no service has it
        return
    index = Approximate(model)
    assert index.depths == []
    with torch.inference_mode():
        asked = walks(model, seed=2)
        assert asked.isfinite().all()
        found = index.search(asked, Depth(10, index.lists, 1.0))
        scores = index.score(asked[:, None], found)
        assert torch.allclose(scores.amax(1), model.score(asked).amax(1), atol=1e-5)


@pytest.mark.parametrize("items", [1, 2, 3, 5, 81, 900])
def test_small_catalogues_are_no_exception(items: int) -> None:
    exact, approximate = engines(items)
    assert approximate.chooser.index is not None
    assert bool(approximate.chooser.index.depths) == (items == 900)
    for k in (1, 4, items + 1):
        ask = Ask(history=[Event(1)], k=k)
        assert _ids(approximate.ask(ask)) == _ids(exact.ask(ask))


def test_threads_and_faiss_stay_as_they_were(index: Approximate, asked: torch.Tensor) -> None:
    faiss = pytest.importorskip("faiss")
    before = torch.get_num_threads(), faiss.cvar.distance_compute_blas_threshold
    torch.set_num_threads(2)
    try:
        again = Approximate(clustered())
        again.search(asked, again.depths[0])
        assert (torch.get_num_threads(), faiss.cvar.distance_compute_blas_threshold) == (2, before[1])
    finally:
        torch.set_num_threads(before[0])


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(NeedsError, match=r"pip install 'foretaste\[ann\]'"):
        Approximate(clustered())


def test_weights_that_are_no_numbers_are_refused() -> None:
    pytest.importorskip("faiss")
    model = clustered()
    next(iter(model.parameters())).data[-1, 0] = float("nan")
    with pytest.raises(TrainingError, match="NaN or infinity is among the vectors of the items"):
        Approximate(model)


def test_hidden_items_are_found_in_each_rows_own_pool() -> None:
    rng = torch.Generator().manual_seed(1)
    pool = torch.stack([torch.randperm(40, generator=rng)[:15].sort().values for _ in range(6)])  # [6, 15], a 0 in some
    hidden = torch.randint(0, 40, (6, 9), generator=rng)
    never = torch.tensor([5, 17])
    scores = torch.randn(6, 15, generator=rng)
    wanted = scores.clone()
    for row, column in [(row, column) for row in range(6) for column in range(15)]:
        if pool[row, column] and pool[row, column].item() in {*hidden[row].tolist(), *never.tolist()}:
            wanted[row, column] = float("-inf")
    hide(scores, pool, never, hidden)
    real = pool > 0
    assert torch.equal(scores[real], wanted[real])
    lists = best("fmc", Vocabulary(list(range(1, 41))), scores.masked_fill(~real, float("-inf")), pool, 4)
    for row, found in enumerate(lists):
        order = wanted[row].masked_fill(~real[row], float("-inf")).argsort(descending=True)[:4]
        assert found.ids == [n for n, c in zip(pool[row][order].tolist(), order, strict=True) if wanted[row, c] > -1e9]


def engines(items: int = ITEMS) -> tuple[Engine, Engine]:
    """One that scores every item, and one with an index."""
    pytest.importorskip("faiss")
    trained = Trained("fmc", clustered(items), Vocabulary(ALL[:items]), None, {})
    return Engine(trained, MemoryStore()), Engine(trained, MemoryStore(), EngineConfig(retrieval="approximate"))


def test_an_engine_with_an_index_answers_as_one_without() -> None:
    """Lists of every length, with the best hidden or not, together and alone."""
    exact, approximate = engines()
    asks = [Ask(history=[Event(item)], k=k) for item in range(1, ITEMS, 97) for k in (5, 20, 90, 400)]
    wide = [Ask(history=[Event(item)], k=20) for item in range(5, ITEMS, 300)]
    for hidden in (30, 400):  # the best of all
        asks += [Ask(history=one.history, k=20, exclude=_ids(exact.ask(_asked(one, hidden)))) for one in wide]
    wanted, got = exact.ask_many(asks), approximate.ask_many(asks)
    lists = [(_ids(a), _ids(b)) for a, b in zip(wanted, got, strict=True)]
    assert [len(a) for a, _ in lists] == [len(b) for _, b in lists]
    kinds: dict[tuple[int, int], list[float]] = {}
    for ask, (a, b) in zip(asks, lists, strict=True):
        kinds.setdefault((ask.k, len(ask.exclude)), []).append(len(set(a) & set(b)) / len(a))
    means = {kind: sum(shares) / len(shares) for kind, shares in kinds.items()}
    assert set(means) == {(5, 0), (20, 0), (90, 0), (400, 0), (20, 30), (20, 400)}
    assert min(means.values()) > 0.98, means
    assert [_ids(approximate.ask(ask)) for ask in asks] == [b for _, b in lists]
    assert "exact" not in made(approximate)


def test_what_is_deeper_than_was_measured_and_own_candidates_are_exact() -> None:
    exact, approximate = engines()
    for ask in (
        Ask(history=[Event(3)], k=501),
        Ask(history=[Event(3)], k=10, exclude=ALL[:600]),
        Ask(history=[Event(3)], k=3, candidates=[7, 9, 11]),
    ):
        assert _ids(approximate.ask(ask)) == _ids(exact.ask(ask))
    assert made(approximate) == {"exact": 2}


def test_a_list_that_comes_out_too_short_is_made_exactly_and_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three asked together the second alone: its depth is taken for one that finds next to nothing."""
    exact, approximate = engines()
    monkeypatch.setattr(Approximate, "depth_for", lambda self, needed: self.depths[0])
    hidden = _ids(exact.ask(Ask(history=[Event(3000)], k=4000)))
    asks = [
        Ask(history=[Event(3)], k=20),
        Ask(history=[Event(3000)], k=20, exclude=hidden),
        Ask(history=[Event(5900)], k=20),
    ]
    told = approximate.ask_many(asks)
    assert made(approximate) == {"indexed": 2, "exact": 1}
    assert _ids(told[1]) == _ids(exact.ask(asks[1]))
    assert [_ids(one) for one in told] == [_ids(approximate.ask(ask)) for ask in asks]


def test_now_and_then_a_list_is_compared_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, approximate = engines()
    monkeypatch.setattr(answering, "CHECK", 10)
    asks = [Ask(history=[Event(item)], k=20) for item in range(1, 26)]
    told = [approximate.ask(ask) for ask in asks]
    both = [len({*_ids(told[place])} & {*_ids(exact.ask(asks[place]))}) for place in (9, 19)]
    assert made(approximate) == {"indexed": 25, "checked": 40, "found": sum(both)}


def test_the_log_says_what_was_made_and_a_poor_index_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level("INFO", logger="foretaste.serving"):
        engines()
        monkeypatch.setattr("foretaste.retrieval.approximate._share", lambda exact, found: 0.5)
        engines()
    good, poor = (one for one in caplog.records if "index" in one.getMessage())
    assert (good.levelname, good.getMessage()) == ("INFO", "the index is made")
    facts: dict[str, Any] = good.__dict__["facts"]
    assert (facts["lists"], facts["recall"].keys()) == (128, {"20", "100", "500"})
    assert poor.levelname == "WARNING"
    assert poor.getMessage() == "an index gains nothing with these items: every list is made exactly"
    assert (poor.__dict__["facts"]["looked_into"], poor.__dict__["facts"]["recall"]) == ({}, {})


def test_the_engine_wants_the_recall_that_is_asked() -> None:
    _, usual = engines()
    strict = Engine(usual.trained, MemoryStore(), EngineConfig(retrieval="approximate", recall=0.9999))
    assert strict.chooser.index is not None
    assert usual.chooser.index is not None
    assert strict.chooser.index.depths[0].probes > usual.chooser.index.depths[0].probes
    with pytest.raises(ConfigError, match=r"recall = 0\.5 is of an index: set retrieval = 'approximate'"):
        EngineConfig.of({"recall": 0.5})


def made(engine: Engine) -> dict[str, int]:
    """What it counts of its index."""
    return {name: engine.counts[name] for name in ("indexed", "exact", "checked", "found") if engine.counts[name]}


def _asked(ask: Ask, k: int) -> Ask:
    return Ask(history=ask.history, k=k)


def _ids(told: Any) -> list[Any]:
    return list(told.recommendations.ids)
