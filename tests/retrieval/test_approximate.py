"""The index: exact scores, nearly the whole exact list, full lists whatever is hidden, the same in every batch."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import NeedsError
from foretaste.models import model_class
from foretaste.models.choosing import best, hide
from foretaste.models.contract import SequenceModel, seeded
from foretaste.models.saved import Trained
from foretaste.retrieval.approximate import BEST, CANDIDATES, Approximate, walks
from foretaste.serving import answering
from foretaste.serving.answering import Chooser
from foretaste.serving.asks import Ask, Event
from foretaste.serving.engine import Engine
from foretaste.serving.planning import EngineConfig
from foretaste.serving.store import MemoryStore
from tests.battery import every_model, make

ITEMS, SIZE = 6000, 16


def clustered(name: str = "fmc") -> SequenceModel:
    """A model whose items lie in a hundred clusters, which is how trained ones lie."""
    kind = model_class(name)
    with seeded(3):
        model = kind(ITEMS, kind.Config.of({"embedding_size": SIZE})).eval()
        centres, own = torch.randn(100, SIZE), torch.randint(100, (ITEMS,))
        vectors = centres[own] + 0.3 * torch.randn(ITEMS, SIZE)  # [I, D]
        for weight in model.parameters():
            weight.data[-ITEMS:] = vectors if weight.dim() == 2 else 0.5 * torch.randn(ITEMS)
    return model


@pytest.fixture(scope="module")
def index() -> Approximate:
    pytest.importorskip("faiss")
    return Approximate(clustered())


def test_what_it_says_of_its_recall_is_so(index: Approximate) -> None:
    """Counted again, with walks that it was not chosen by."""
    assert 0.99 <= index.recall <= 1
    assert index.index.nprobe < index.lists == 128
    with torch.inference_mode():
        asked = walks(index.model, seed=7)
        exact = index.model.score(asked).topk(BEST).indices + 1
        found = index.search(asked, CANDIDATES)
    hits = sum(len(set(e) & set(f)) for e, f in zip(exact.tolist(), found.tolist(), strict=True))
    assert hits / exact.numel() > 0.97


def test_candidates_stand_in_order_and_have_their_exact_scores(index: Approximate) -> None:
    with torch.inference_mode():
        asked = walks(index.model)[:50]
        found = index.search(asked, CANDIDATES)
        assert ((found[:, 1:] > found[:, :-1]) | (found[:, :-1] == 0)).all()
        whole, real = index.model.score(asked), found > 0  # [50, I], [50, F]
        exact = whole.gather(1, (found - 1).clamp(min=0))
        assert torch.allclose(index.score(asked[:, None], found)[real], exact[real], atol=1e-5)
        assert torch.equal(index.score(asked[:, None]), whole)
        one_by_one = torch.cat([index.search(asked[i : i + 1], CANDIDATES) for i in range(50)])
    assert torch.equal(found, one_by_one)


def test_the_same_weights_give_the_same_index(index: Approximate) -> None:
    again = Approximate(clustered())
    with torch.inference_mode():
        asked = walks(index.model, seed=9)
    assert torch.equal(index.search(asked, 300), again.search(asked, 300))


def test_where_there_are_fewer_candidates_the_rest_is_nothing(index: Approximate) -> None:
    with torch.inference_mode():
        asked = walks(index.model)[:3]
        found = index.search(asked, ITEMS)
        scores = index.score(asked[:, None], found)
    assert (found[:, 0] == 0).all()  # some of its lists were not looked into
    assert torch.equal(found == 0, scores.isneginf())


def test_a_bias_is_part_of_the_product() -> None:
    pytest.importorskip("faiss")
    model = clustered()
    bias = 3 * torch.randn(ITEMS, generator=torch.Generator().manual_seed(0))
    model.item_bias = lambda: bias  # type: ignore[method-assign]
    index = Approximate(model)
    with torch.inference_mode():
        asked = walks(model, seed=4)[:40]
        whole, found = model.score(asked), index.search(asked, CANDIDATES)
        real, exact = found > 0, whole.gather(1, (found - 1).clamp(min=0))
        assert torch.allclose(index.score(asked[:, None], found)[real], exact[real], atol=1e-5)
    hits = sum(
        len(set(e) & set(f)) for e, f in zip((whole.topk(BEST).indices + 1).tolist(), found.tolist(), strict=True)
    )
    assert hits / (40 * BEST) > 0.97


@every_model
def test_every_model_with_one_inner_product_has_one(name: str, variant: dict[str, object]) -> None:
    """On a catalogue smaller than the candidates the lists are the exact ones; the others say why there are none."""
    pytest.importorskip("faiss")
    model = make(name, variant).float()
    if type(model).score is not SequenceModel.score:
        with pytest.raises(NeedsError, match="leave it at 'exact'"):
            Approximate(model)
        return
    if not model.causal:  # no service has it
        return
    index = Approximate(model)
    assert index.recall == 1
    with torch.inference_mode():
        asked = walks(model, seed=2)
        assert asked.isfinite().all()
        scores = index.score(asked[:, None], index.search(asked, CANDIDATES))
        assert torch.allclose(scores.amax(1), model.score(asked).amax(1), atol=1e-5)


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(NeedsError, match=r"pip install 'foretaste\[ann\]'"):
        Approximate(clustered())


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


def engines() -> tuple[Engine, Engine]:
    """One that scores every item, and one with an index."""
    pytest.importorskip("faiss")
    trained = Trained("fmc", clustered(), Vocabulary(list(range(1, ITEMS + 1))), None, {})
    return Engine(trained, MemoryStore()), Engine(trained, MemoryStore(), EngineConfig(retrieval="approximate"))


def test_an_engine_with_an_index_answers_as_one_without() -> None:
    exact, approximate = engines()
    asks = [Ask(history=[Event(item)], k=k) for item in range(1, ITEMS, 97) for k in (5, 20)]
    wide = [Ask(history=[Event(3)], k=900), Ask(history=[Event(8)], k=10, exclude=list(range(1, 700)))]
    wanted, got = exact.ask_many(asks + wide), approximate.ask_many(asks + wide)
    lists = [(_ids(a), _ids(b)) for a, b in zip(wanted, got, strict=True)]
    assert [len(a) for a, _ in lists] == [len(b) for _, b in lists]
    assert sum(len(set(a) & set(b)) for a, b in lists[:-2]) > 0.985 * sum(len(a) for a, _ in lists[:-2])
    alone = [approximate.ask(ask) for ask in asks]
    assert [_ids(one) for one in alone] == [b for _, b in lists[:-2]]
    some = approximate.ask(Ask(history=[Event(3)], k=3, candidates=[7, 9, 11]))
    assert _ids(some) == _ids(exact.ask(Ask(history=[Event(3)], k=3, candidates=[7, 9, 11])))


def test_a_list_that_hidden_items_make_too_short_is_made_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, approximate = engines()
    monkeypatch.setattr(answering, "_candidates", lambda one: 10)
    ask = Ask(history=[Event(3)], k=8, exclude=_ids(exact.ask(Ask(history=[Event(3)], k=9))))
    assert _ids(approximate.ask(ask)) == _ids(exact.ask(ask))


def test_now_and_then_a_list_is_compared_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _, approximate = engines()
    monkeypatch.setattr(answering, "CHECK", 10)
    for item in range(1, 26):
        approximate.ask(Ask(history=[Event(item)], k=20))
    counts = approximate.chooser.counts
    assert (counts["indexed"], counts["checked"]) == (25, 60)
    assert 55 <= counts["found"] <= 60


def test_a_poor_index_is_told_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr("foretaste.retrieval.approximate._share", lambda exact, found: 0.5)
    with caplog.at_level("INFO", logger="foretaste.serving"):
        engines()
    (record,) = [one for one in caplog.records if "index" in one.getMessage()]
    assert record.levelname == "WARNING"
    facts: dict[str, Any] = record.__dict__["facts"]
    assert facts["looked_into"] == facts["lists"] == 128
    assert facts[f"recall@{BEST}"] == 0.5


def test_the_chooser_without_an_index_keeps_the_catalogue_once() -> None:
    assert Chooser(Trained("fmc", clustered(), Vocabulary(list(range(1, ITEMS + 1))), None, {})).index is None


def _ids(told: Any) -> list[Any]:
    return list(told.recommendations.ids)
