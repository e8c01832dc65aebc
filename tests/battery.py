"""The battery: what every registered model must pass. To add a model, add its variants in variants.py; nothing else.

A part that does not apply is declared in the model (`not_applicable`) with its reason, and skips with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.config import Config
from foretaste.data.sequences import TEST, TRAIN, Sequences
from foretaste.data.simulate import KINDS, KnownLog, known
from foretaste.data.vocabulary import Vocabulary
from foretaste.errors import ForetasteError, NeedsError
from foretaste.evaluation.evaluate import evaluate
from foretaste.evaluation.protocols import PerStep
from foretaste.models import MODELS, contract, model_class
from foretaste.models.choosing import Recommendations
from foretaste.models.contract import Events, Query, SequenceModel, State, query_rows, seeded
from foretaste.models.saved import Trained
from foretaste.training.loop import TrainConfig, train
from foretaste.training.objective import pull
from foretaste.training.settings import joined
from tests.fresh import in_a_new_process, models_imported, peak_of_recommending, told_by_saved
from tests.squares import squares
from tests.variants import LEARNING, LEARNING_ON, VARIANTS

CASES = [(name, variant) for name in MODELS for variant in VARIANTS[name]]
N_ITEMS, N_USERS = 30, 9
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}

LADDER = ("popularity", "last_item", "order", "set", "user_taste")
"""Of each of these logs a model says that it masters it, or why not."""

IDS = [f"{name}-{variant}" if variant else name for name, variant in CASES]
every_model = pytest.mark.parametrize(("name", "variant"), CASES, ids=IDS)


def looks_at_the_newest_event_alone(name: str, variant: dict[str, object]) -> bool:
    """By what it is, so that nothing of a state shows in its answer."""
    if name in ("fpmc", "fmc", "hrm"):
        return "basket" not in variant
    small = {
        "bpr-mf": ("users", None),
        "rum-item": ("slots", 1),
        "caser": ("window", 1),
        "nextitnet": ("kernel_size", 1),
    }
    setting, value = small.get(name, ("", 0))
    return bool(setting) and variant.get(setting) == value


def skip_unless_applicable(name: str, part: str) -> None:
    reason = model_class(name).not_applicable.get(part)
    if reason:
        pytest.skip(f"{name}: {reason}")


def make(
    name: str, variant: dict[str, object], n_items: int = N_ITEMS, dtype: torch.dtype = torch.float64
) -> SequenceModel:
    """A model with random weights, or counts from a random log, ready to answer."""
    kind = model_class(name)
    with seeded(3):
        model = kind(n_items, kind.Config.of(variant), N_USERS)
    model.count(random_log(n_items))
    return model.to(dtype).eval() if kind.learns == "gradient" else model.eval()


def other_value(config: Config, setting: str) -> object:
    """Another value than a setting has."""
    value, kind = getattr(config, setting), type(config).model_fields[setting].annotation
    if get_origin(kind) is Literal:
        return next(one for one in get_args(kind) if one != value)
    if isinstance(value, bool):
        return not value
    return [*value, 5] if isinstance(value, tuple) else (value - 1 or 2) if isinstance(value, int) else value / 2


def random_log(n_items: int = N_ITEMS, n_users: int = 40, seed: int = 5) -> Sequences:
    """Users with one to four sessions of one to eight events."""
    rng = np.random.default_rng(seed)
    lengths = [rng.integers(1, 9, size=rng.integers(1, 5)) for _ in range(n_users)]
    sessions = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    users = np.concatenate([[0], np.cumsum([row.sum() for row in lengths])]).astype(np.int64)
    size = int(users[-1])
    return Sequences(
        items=rng.integers(1, n_items + 1, size).astype(np.int32),
        users=users,
        sessions=sessions,
        part=np.zeros(size, np.uint8),
        user_numbers=(np.arange(n_users) % N_USERS + 1).astype(np.int32),
        times=np.cumsum(rng.integers(1, 5000, size)).astype(np.int64),
        columns={"dwell": rng.integers(1, 600, size)},
    )


def random_events(rows: int = 5, width: int = 23, seed: int = 0, n_items: int = N_ITEMS) -> Events:
    """Rows of every length from none to `width`, with repeats, sessions, times and dwell."""
    rng = np.random.default_rng(seed)
    lengths = torch.tensor([width, 0, 1, *rng.integers(2, width, size=rows - 3)])[:, None]
    mask = torch.arange(width)[None] < lengths
    items = torch.tensor(rng.integers(1, n_items + 1, (rows, width))) * mask
    starts = (torch.tensor(rng.random((rows, width)) < 0.2) | (torch.arange(width) == 0)) & mask
    times = torch.tensor(np.cumsum(rng.integers(1, 9000, (rows, width)), axis=1)) * mask
    dwell = torch.tensor(rng.integers(1, 600, (rows, width))) * mask
    return Events(items, mask, starts, times, {"dwell": dwell})


def users_of(events: Events) -> Tensor:
    return torch.arange(events.shape[0]) % (N_USERS + 1)


def scores(model: SequenceModel, query: Query) -> Tensor:
    with torch.no_grad():
        return model.score(query)


def answers(model: SequenceModel, events: Events, state: State | None = None) -> tuple[Tensor, State]:
    """Scores [B, T, I] with 0 at padded positions, and the state after."""
    state = model.initial_state(users_of(events)) if state is None else state
    with torch.no_grad():
        query, after = model(events, state)
        return scores(model, query).masked_fill(~events.mask[..., None], 0), after


def ask(trained: Trained, histories: list[list[object]], k: int, **options: object) -> list[Recommendations]:
    """Recommend with made-up times and sessions beside the histories, for the models that need them."""
    needs = trained.model.needs
    beside: dict[str, object] = dict(options)
    if "times" in needs:
        beside["times"] = [[1000 * n for n in range(len(history))] for history in histories]
    if "sessions" in needs:
        beside["sessions"] = [[n // 2 for n in range(len(history))] for history in histories]
    return trained.recommend_batch(histories, k, **beside)  # type: ignore[arg-type]


def refused_if_not_causal(trained: Trained) -> None:
    """A model that is told something of the next event is never asked."""
    if not trained.model.causal:
        with pytest.raises(NeedsError, match="causal"):
            ask(trained, [[]], 5)
        pytest.skip("told something of the next event: refused, as it should be")


def assert_same(found: Tensor, wanted: Tensor, what: str) -> None:
    """Equal within 1e-5 max(1, |x|) in float32 and 1e-10 in float64; whole numbers exactly."""
    if not wanted.is_floating_point():
        assert torch.equal(found, wanted), what
        return
    bound = TOLERANCE[wanted.dtype] * wanted.abs().clamp(min=1)
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)} against {tuple(wanted.shape)}"
    assert bool(((found - wanted).abs() <= bound).all()), f"{what}: off by {float((found - wanted).abs().max()):.2e}"


def assert_same_state(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_same(found[name], wanted[name], f"state '{name}'")


def test_every_model_is_in_the_battery() -> None:
    assert VARIANTS.keys() == MODELS.keys()
    for name in MODELS:
        kind = model_class(name)
        assert kind.summary
        assert kind.paper
        masters = {*kind.masters}
        short = [log for logs in kind.short_of for log in logs.split(", ")]
        assert len(short) == len(set(short))
        assert masters.isdisjoint(short)
        assert {*LADDER} <= {*masters, *short} <= {*KINDS}, name


@every_model
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_the_law(name: str, variant: dict[str, object], dtype: torch.dtype) -> None:
    """model(a ++ b, s) equals model(a, s) followed by model(b, s'), for every way of cutting."""
    model = make(name, variant, dtype=dtype)
    rng = np.random.default_rng(1)
    for seed in range(4):
        every, users = random_events(seed=seed), users_of(random_events(seed=seed))
        width = every.shape[1]
        random_cuts = sorted(set(rng.integers(0, width + 1, size=3).tolist()))
        # all rows; and the first, without padding: a service's calls, for which a model may have a shorter way
        for events, user, ways in (
            (every, users, ([1], [width - 1], random_cuts, list(range(1, width)))),
            (every.rows(slice(0, 1)), users[:1] + seed, ([1], list(range(1, width)))),
        ):
            whole, final = answers(model, events, model.initial_state(user))
            for cuts in ways:
                state, parts = model.initial_state(user), []
                for first, last in zip([0, *cuts], [*cuts, width], strict=True):
                    part, state = answers(model, events.cut(first, last), state)
                    parts.append(part)
                assert_same(torch.cat(parts, 1), whole, f"queries, cut at {cuts}")
                assert_same_state(state, final)


@every_model
def test_the_last_row_is_the_query_of_the_state(name: str, variant: dict[str, object]) -> None:
    model, events = make(name, variant), random_events()
    whole, final = answers(model, events)
    alone = scores(model, model.query(final))[:, 0]
    for row, length in enumerate(events.lengths().tolist()):
        if length:
            assert_same(alone[row], whole[row, length - 1], f"row {row}")
    start = model.initial_state(users_of(events))
    assert_same(scores(model, model.query(start))[1, 0], alone[1], "a row without events")


@every_model
def test_asking_some_positions_changes_nothing(name: str, variant: dict[str, object]) -> None:
    model, events = make(name, variant), random_events()
    whole, final = answers(model, events)
    at = events.mask & (torch.rand(events.shape, generator=torch.Generator().manual_seed(0)) < 0.4)
    with torch.no_grad():
        query, after = model(events, model.initial_state(users_of(events)), at=at)
    assert_same(scores(model, query), whole[at], "asked positions")
    assert_same_state(after, final)


@every_model
def test_the_future_moves_nothing(name: str, variant: dict[str, object]) -> None:
    """Other events after t leave every answer at or before t as it was."""
    model, events, other = make(name, variant), random_events(seed=0), random_events(seed=9)
    if not model.causal:
        pytest.skip(f"{name}: declares causal = False")
    whole, _ = answers(model, events)
    width = events.shape[1]
    for t in (0, 3, width - 2):
        late = torch.arange(width)[None] > t

        def mixed(a: Tensor, b: Tensor, late: Tensor = late) -> Tensor:
            return torch.where(late, b, a)

        mask = events.mask
        changed = Events(
            mixed(events.items, other.items.where(other.items > 0, 1)) * mask,
            mask,
            mixed(events.starts, other.starts) & mask,
            mixed(events.times, events.times + 77),
            {"dwell": mixed(events.columns["dwell"], other.columns["dwell"]) * mask},
        )
        moved, _ = answers(model, changed)
        assert_same(moved[:, : t + 1], whole[:, : t + 1], f"answers up to {t}")


@every_model
def test_a_batch_is_its_rows_one_by_one(name: str, variant: dict[str, object]) -> None:
    """Neither the other rows nor more padding change an answer."""
    model, events = make(name, variant), random_events()
    whole, final = answers(model, events)
    for row, length in enumerate(events.lengths().tolist()):
        alone = events.rows(slice(row, row + 1)).cut(0, length)
        state = {key: part[row : row + 1] for key, part in model.initial_state(users_of(events)).items()}
        found, after = answers(model, alone, state)
        assert_same(found, whole[row : row + 1, :length], f"row {row}")
        assert_same_state(after, {key: part[row : row + 1] for key, part in final.items()})


@every_model
def test_candidates_get_the_scores_of_the_full_list(name: str, variant: dict[str, object]) -> None:
    model, events = make(name, variant), random_events()
    with torch.no_grad():
        query, _ = model(events, model.initial_state(users_of(events)), at=events.mask)
        full = model.score(query)
        shared = torch.tensor([4, 1, N_ITEMS])
        assert_same(model.score(query, shared), full[:, shared - 1], "a shared list")
        own = torch.randint(1, N_ITEMS + 1, (len(full), 6), generator=torch.Generator().manual_seed(0))
        for dense in (0, N_ITEMS):  # by the candidates' rows, and read off the scores of all
            with patch.object(contract, "DENSE", dense):
                assert_same(model.score(query, own), full.gather(1, own - 1), "own candidates")
        some = query_rows(query, slice(2, 5))
        assert_same(model.score(some), full[2:5], "some rows of a query")
    assert full.shape[1] == N_ITEMS, "padding has no column"


@every_model
def test_the_state_is_bounded(name: str, variant: dict[str, object]) -> None:
    """Its size does not grow with the history, and every tensor has a row a user."""
    model = make(name, variant)
    _, short = answers(model, random_events(width=5))
    _, long = answers(model, random_events(width=80))
    assert {k: v.shape for k, v in short.items()} == {k: v.shape for k, v in long.items()}
    assert all(len(part) == 5 for part in long.values())


@every_model
def test_a_row_without_events_does_not_disturb_the_explanation(name: str, variant: dict[str, object]) -> None:
    """Every part has a row a row and a place an event and is finite, also where there is no event at all."""
    model, events = make(name, variant), random_events()
    for some in (events, events.cut(0, 0), events.rows(slice(1, 2))):  # the second row of `events` is empty
        users = torch.ones(some.shape[0], dtype=torch.int64)
        with torch.no_grad():
            found = model.explain(some, model.initial_state(users), torch.tensor([4, 1, N_ITEMS]))
        for key, part in found.items():
            assert part.shape[:2] == some.shape, key
            assert bool(part.isfinite().all()), key


@every_model
def test_the_explanation_is_the_same_for_any_cut(name: str, variant: dict[str, object]) -> None:
    """What was seen before the call is a reason as well: a serving call brings one event."""
    model, events, candidate = make(name, variant), random_events(), torch.tensor([4])

    def reasons(parts: dict[str, Tensor], row: int, place: int) -> dict[str, list[object]]:
        """Numbers as they are; weights from the newest back, or each beside its item; what weighs nothing left out."""
        of = {key: part[row, place].flatten().tolist() for key, part in parts.items()}
        items, weights = of.pop("items", None), of.pop("attention", [])
        named = enumerate(weights[::-1]) if items is None else sorted(zip(items, weights, strict=True))
        return {**of, "attention": [number for pair in named if pair[1] for number in pair]}

    with torch.no_grad():
        whole = model.explain(events, model.initial_state(users_of(events)), candidate)
        for t in (1, 7, events.shape[1] - 1):
            _, state = model(events.cut(0, t), model.initial_state(users_of(events)))
            piece = model.explain(events.cut(t, t + 1), state, candidate)
            assert piece.keys() == whole.keys()
            for row in events.mask[:, t].nonzero().flatten().tolist():
                found, wanted = reasons(piece, row, 0), reasons(whole, row, t)
                for key in wanted:
                    assert found[key] == pytest.approx(wanted[key], abs=1e-10), f"{key}, row {row} after event {t}"


@every_model
def test_parts_that_differ_by_the_candidate_are_named(name: str, variant: dict[str, object]) -> None:
    """Whoever shows them takes the candidate's axis away, and no other one of size 1."""
    model, events = make(name, variant), random_events()
    with torch.no_grad():
        one, three = (model.explain(events, model.initial_state(users_of(events)), items)
                      for items in (torch.tensor([4]), torch.tensor([4, 1, N_ITEMS])))  # fmt: skip
    assert {key for key in one if one[key].shape != three[key].shape} == set(model.by_candidate) & one.keys()


@every_model
def test_training_reads_the_state_or_says_that_it_does_not(name: str, variant: dict[str, object]) -> None:
    skip_unless_applicable(name, "gradients")
    model, events = make(name, variant).train(), random_events()
    answered = []
    for start in (0, 6):
        torch.manual_seed(0)  # dropout is the same
        state = model.initial_state(users_of(events))
        if start:
            model.eval()
            state = model(events.cut(0, start), state)[1]
            model.train()
        torch.manual_seed(1)
        query, _ = model(events.cut(6, 7), state)
        answered.append(query if isinstance(query, torch.Tensor) else torch.cat([*map(torch.flatten, query.values())]))
    fresh, later = answered
    assert torch.equal(fresh, later) == (not model.carries or looks_at_the_newest_event_alone(name, variant))


@every_model
def test_what_is_not_read_says_nothing(name: str, variant: dict[str, object]) -> None:
    """A setting that the others leave unread moves no weight, no answer, in training neither, and no explanation."""
    kind, config = model_class(name), model_class(name).Config.of(variant)
    for setting in config.idle:
        found = []
        for value in (getattr(config, setting), other_value(config, setting)):
            with seeded(3):
                model = kind(N_ITEMS, kind.Config.of({**variant, setting: value}), N_USERS)
                model.count(random_log())
                trained, _ = answers(model.train(), random_events())
                asked, _ = answers(model.eval(), random_events())
            reasons = model.explain(random_events(), model.initial_state(users_of(random_events())))
            found.append({**model.state_dict(), "trained": trained, "asked": asked, **reasons})
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(value, found[1][key]) for key, value in found[0].items()), setting


@every_model
def test_a_user_without_training_is_a_stranger(name: str, variant: dict[str, object]) -> None:
    """Weights drawn for one who then had no event in training are no taste: `forget` leaves nothing of them."""
    model, events = make(name, variant), random_events()
    model.train()
    model.forget(torch.tensor([2, N_USERS]))
    model.eval()
    of = [model.initial_state(torch.full((len(events.items),), user)) for user in (0, 2, N_USERS)]
    unknown, *found = (answers(model, events, state)[0] for state in of)
    for one in found:
        assert_same(one, unknown, "a user without training")


@every_model
def test_gradients_are_finite_and_reach_every_weight(name: str, variant: dict[str, object]) -> None:
    skip_unless_applicable(name, "gradients")
    model, events = make(name, variant).train(), random_events()
    query, _ = model(events, model.initial_state(users_of(events)), at=events.mask)
    targets = torch.arange(int(events.mask.sum())) % N_ITEMS
    found = model.score(query)
    loss = torch.nn.functional.cross_entropy(found, targets) + 1e-3 * found.square().mean()  # levels count as well
    (loss if model.auxiliary is None else loss + model.auxiliary).backward()
    for weight_name, weight in model.named_parameters():
        assert weight.grad is not None, f"no gradient for {weight_name}"
        assert bool(weight.grad.isfinite().all()), weight_name
        assert bool(weight.grad.abs().sum() > 0), f"{weight_name} is never moved"


@every_model
def test_a_penalty_pulls_the_rows_that_a_model_names(name: str, variant: dict[str, object]) -> None:
    """The gradient of `l2`, which is added by hand, against that of the sum of their squares."""
    model = make(name, variant)
    users, items = torch.tensor([3, 0, 3, 1]), torch.tensor([5, 5, 1, N_ITEMS])
    if type(model).owned is SequenceModel.owned:
        with pytest.raises(NotImplementedError, match="leave l2 at 0"):
            model.owned(users, items)
        return
    owned = model.owned(users, items)
    squares(owned).backward()
    wanted = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    pull(owned, 0.5)
    pull(owned, 1.5)
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert found
    assert found.keys() == wanted.keys()
    for table, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[table], msg=lambda m, table=table: f"{table}: {m}")
    model.requires_grad_(False).zero_grad()
    pull(owned, 1.0)
    assert all(weight.grad is None for weight in model.parameters()), "what is frozen stays"


@every_model
def test_training_is_deterministic_under_a_seed(name: str, variant: dict[str, object]) -> None:
    skip_unless_applicable(name, "gradients")
    kind, log = model_class(name), random_log(n_users=20)
    weights = []
    for _ in range(2):
        with seeded(11):
            model = kind(N_ITEMS, kind.Config.of(variant), N_USERS)
        model.count(log)
        torch.rand(3)  # whatever the caller draws in between
        train(model, log, TrainConfig.of({**kind.recipe, "epochs": 2, "batch": 64, "seed": 11}))
        weights.append(model.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).learns == "gradient"])
def test_every_pass_starts_from_the_empty_state(name: str) -> None:
    """A pass leaves nothing but weights: where the rate is too small to move them, the next has the same loss."""
    kind, log = model_class(name), random_log()
    still = {field: 0.0 for field in kind.Config.model_fields if "dropout" in field}
    with seeded(4):
        model = kind(N_ITEMS, kind.Config.of(still), N_USERS)
    model.count(log)
    pieces = {"chunk": 5} if kind.carries else {}
    quiet = {"loss": "softmax", "negatives": 0, "l2": 0.0, "optimizer": "adam", "learning_rate": 1e-12}
    config = TrainConfig.of(joined(kind.recipe, {**quiet, **pieces, "epochs": 3, "batch": 16}))
    losses = [one["loss"] for one in train(model, log, config).history]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


@pytest.mark.parametrize("n_items", [2, N_ITEMS], ids=["two items", "sessions of one item"])
@pytest.mark.parametrize("name", MODELS)
def test_poor_logs_train_and_answer(name: str, n_items: int) -> None:
    """A catalogue of two; sessions of one item again and again. By the recipe: a thousand negatives of two items."""
    kind, log = model_class(name), random_log(n_items, n_users=12)
    if n_items > 2:
        first = np.repeat(log.sessions[:-1], np.diff(log.sessions))
        log = replace(log, items=log.items[first])
    with seeded(2):
        model = kind(n_items, kind.Config(), N_USERS)
    model.count(log)
    if kind.learns == "gradient":
        result = train(model, log, TrainConfig.of({**kind.recipe, "epochs": 1, "batch": 64}))
        assert np.isfinite(result.history[0]["loss"])
        model = model.double()
    events = random_events(n_items=n_items)
    model = model.eval()
    query, _ = model(events, model.initial_state(users_of(events)))
    assert scores(model, query).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_in_a_new_process_it_answers_the_same(name: str, tmp_path: Path) -> None:
    ids = [f"item, {n}\n" for n in range(N_ITEMS)]
    users = Vocabulary([f"user {n}" for n in range(N_USERS)])
    history: list[object] = [ids[3], ids[7], "never seen", ids[3]]
    beside = {"times": [5, 900, 7000, 9000], "sessions": [1, 1, 2, 2], "user": "user 4"}
    here = {}
    for number, variant in enumerate(VARIANTS[name]):
        trained = Trained(name, make(name, variant, dtype=torch.float32), Vocabulary(ids), users, {"data": "random"})
        folder = str(trained.save(tmp_path / str(number)))
        if not trained.model.causal:
            with pytest.raises(NeedsError, match="causal"):
                ask(trained, [[]], 5)
            continue
        told = trained.recommend(history, 7, **beside)  # type: ignore[arg-type]
        here[folder] = (told.ids, told.scores, ["never seen"])
    assert in_a_new_process(told_by_saved, list(here), history, 7, beside) == here


def test_a_new_process_has_imported_no_model() -> None:
    assert in_a_new_process(models_imported) == []


@every_model
def test_unknown_items_and_empty_histories(name: str, variant: dict[str, object]) -> None:
    model = make(name, variant, dtype=torch.float32)
    trained = Trained(name, model, Vocabulary(list(range(100, 100 + N_ITEMS))), None, {})
    refused_if_not_causal(trained)

    def alone(history: list[object], k: int, **options: object) -> Recommendations:
        return ask(trained, [history], k, **options)[0]

    empty = alone([], 5)
    assert len(empty) == 5
    assert alone(["?", None], 5).ids == empty.ids
    assert alone(["?", None], 5).skipped == ["?", None]
    histories: list[list[object]] = [[], [101], [101, 102, 103], ["?", 129]]
    together = ask(trained, histories, 4)
    for history, found in zip(histories, together, strict=True):
        one = alone(history, 4)
        assert found.ids == one.ids
        assert found.scores == pytest.approx(one.scores, rel=1e-5, abs=1e-6)
    assert len(alone([101], 10_000)) == N_ITEMS
    assert not set(alone([101, 102], N_ITEMS, leave_out_seen=True).ids) & {101, 102}
    assert set(alone([101], 3, candidates=[105, 106]).ids) == {105, 106}
    assert 105 not in alone([101], N_ITEMS, exclude=[105, "?"]).ids


@every_model
def test_a_damaged_weight_is_refused(name: str, variant: dict[str, object]) -> None:
    model = make(name, variant, dtype=torch.float32)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    trained = Trained(name, model, Vocabulary(list(range(N_ITEMS))), None, {})
    if model.causal:
        with pytest.raises(ForetasteError, match=r"[Nn]a[Nn]"):
            ask(trained, [[1]], 5)
    log = random_log()
    with pytest.raises(ForetasteError, match=r"[Nn]a[Nn]"):
        evaluate(model, log, PerStep().cases(log, TRAIN))


@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*case, marks=[] if case[1] is VARIANTS[case[0]][0] else [pytest.mark.slow]) for case in CASES],
)
def test_scoring_forty_thousand_items_holds_little(name: str, variant: dict[str, object]) -> None:
    """Recommending for 3,000 histories over 40,000 items never holds the 480 MB that all scores at once would take."""
    if not make(name, variant).causal:
        pytest.skip("told something of the next event: never asked")
    grown = in_a_new_process(peak_of_recommending, name, variant, 40_000, 3000)
    assert grown < 300, f"{grown} MB more at the peak"


def learned_recall(name: str, kind_of_log: str, seed: int = 0, share: float = 1.0) -> tuple[float, KnownLog]:
    """Recall of a freshly trained model on a simulated log, and the log with its ceilings; `share` of all passes."""
    kind, log = model_class(name), known(kind_of_log, seed=seed)
    settings = {**LEARNING.get(name, {}), **LEARNING_ON.get((name, kind_of_log), {})}
    own = {key: settings.pop(key) for key in list(settings) if key in kind.Config.model_fields}
    with seeded(seed):
        model = kind(log.n_items, kind.Config.of(own), log.sequences.n_users)
    training = log.sequences.of_part(TRAIN)
    model.count(training)
    if kind.learns == "gradient":
        config = TrainConfig.of(joined(kind.recipe, {**settings, "seed": seed}))
        train(model, training, config.with_(epochs=max(round(share * config.epochs), 1)))
    found = evaluate(model, log.sequences, PerStep().cases(log.sequences, TEST), cutoffs=(log.k,))
    return found.means()[f"recall@{log.k}"], log


@pytest.mark.parametrize(
    ("name", "kind_of_log"),
    [  # that popularity is learnt shows on the other logs too, so by itself it can wait for `make slow`
        pytest.param(
            name, log, id=f"{name}-{log}", marks=[pytest.mark.slow] * (long or (log == "popularity" and alone))
        )
        for name in MODELS
        for log in model_class(name).masters
        for alone in [len(model_class(name).masters) > 1]
        for long in [LEARNING_ON.get((name, log), {}).get("epochs", 0) >= 20]
    ],
)
def test_it_masters_the_logs_it_declares(name: str, kind_of_log: str) -> None:
    """Within 10 % of the best possible recall."""
    recall, log = learned_recall(name, kind_of_log)
    assert recall >= 0.9 * log.ceiling, f"{recall:.3f} of at best {log.ceiling:.3f}"


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).beyond])
def test_it_does_not_know_what_it_cannot_know(name: str) -> None:
    """On the log whose secret it has no access to, it must not exceed what is possible without it.

    Where that log is much longer than those it masters, fewer passes are as many steps as it learns those in.
    """
    kind_of_log = model_class(name).beyond
    recall, log = learned_recall(name, kind_of_log, share={"dwell": 0.5, "distant": 0.25}.get(kind_of_log, 1.0))
    reachable = max(log.without.values())
    assert recall <= reachable + 3 * log.noise, f"{recall:.3f}, though without the secret at best {reachable:.3f}"
