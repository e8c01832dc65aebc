"""A shop with known truth: who likes what, what each visit was for, and which clicks were stray.

It looks like a shop's log and needs no download: readable titles, popular and unpopular items, evening visits, days
between them, dwell times. And it holds what a real log hides (`truth`), so one can see what a model has understood:

- long-term taste: each user has a law over the categories (Dirichlet) that drifts from visit to visit;
- short-term intent: a visit wants one category, chosen by taste, and one style in it ("Walnut ..."). Most of its events
  match both, some only the category, some are stray (any item, by popularity), some go back to an item of the visit;
- dwell: long on what matches the intent, short on the rest.

All of it is vectorised: 100,000 users are some 2 million events and take 2 seconds. No part of it needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ConfigError

if TYPE_CHECKING:
    from foretaste.data.events import EventLog

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

START = 1_704_067_200
"""Monday, 2024-01-01, in seconds."""

# category: typical price, styles (what an intent is about), things, finishes
CATALOGUE: dict[str, tuple[float, str, str, str]] = {
    "Lighting": (
        60, "Walnut, Brass, Paper, Marble, Industrial, Rattan, Opal glass, Concrete",
        "desk lamp, floor lamp, pendant light, wall light, table lamp, reading light, night light, lantern",
        "small, large, dimmable, with USB port, warm white, black",
    ),
    "Shoes": (
        90, "Trail, Canvas, Leather, Suede, Waterproof, Vegan, Wool, Barefoot",
        "running shoes, sneakers, ankle boots, sandals, loafers, hiking boots, slippers, slip-ons",
        "blue, black, sand, olive, white, burgundy",
    ),
    "Kitchen": (
        35, "Copper, Enamel, Everyday, Heirloom, Nordic, Provence, Steel, Chef's",
        "frying pan, saucepan, casserole, mixing bowl, colander, kettle, baking dish, pepper mill",
        "small, large, set of two, gift box, matt black, cream",
    ),
    "Garden": (
        28, "Terracotta, Galvanised, Cedar, Folding, Copper, Heavy-duty, Balcony, Zinc",
        "planter, watering can, bird house, trowel, garden chair, trellis, rain gauge, tool box",
        "green, grey, small, large, set of three, rust",
    ),
    "Outdoor": (
        75, "Ultralight, Three-season, Family, Insulated, Packable, Alpine, Expedition, Recycled",
        "tent, sleeping bag, backpack, camping stove, rain jacket, water bottle, head torch, sleeping mat",
        "orange, forest green, slate, compact, large, grey",
    ),
    "Bicycle": (
        48, "Touring, Commuter, Gravel, Mountain, Carbon, City, Retro, Racing",
        "saddle, pannier, front light, handlebar tape, helmet, pedals, mudguards, bell",
        "black, silver, red, small, medium, large",
    ),
    "Books": (
        18, "Illustrated, Pocket, Beginner's, Complete, Modern, Regional, Children's, Annotated",
        "bird guide, bread book, star atlas, knitting book, chess primer, wine companion, tree guide, poetry reader",
        "hardcover, paperback, large print, second edition, signed, boxed",
    ),
    "Music": (
        110, "Acoustic, Electric, Student, Concert, Travel, Vintage, Left-handed, Mahogany",
        "guitar, ukulele, violin, mandolin, banjo, cello, bass, lap steel",
        "natural, sunburst, black, with case, starter set, red",
    ),
    "Toys": (
        22, "Wooden, Magnetic, Glow-in-the-dark, Giant, Wind-up, Felt, Pocket-size, Musical",
        "train set, puzzle, building blocks, memory game, spinning top, marble run, dominoes, stacking tower",
        "from 3 years, from 6 years, rainbow, pastel, small, large",
    ),
    "Bath": (
        24, "Lavender, Sea salt, Eucalyptus, Citrus, Oatmeal, Rose, Charcoal, Olive oil",
        "soap bar, body scrub, hand cream, bath oil, shower gel, bath salts, body lotion, shampoo",
        "gift box, travel size, set of two, large, refill, unscented",
    ),
    "Coffee": (
        16, "Single-origin, Espresso, Decaf, Breakfast, Fair-trade, Dark-roast, Ethiopian, Hazelnut",
        "beans, ground coffee, capsules, sampler, coffee pads, drip bags, instant coffee, cold brew",
        "250 g, 500 g, 1 kg, gift edition, pack of two, pack of six",
    ),
    "Office": (
        32, "Recycled, Ergonomic, Minimalist, Cork, Felt, Studio, Anodised, Japanese",
        "notebook, office chair, pen case, desk organiser, whiteboard, mouse pad, monitor stand, weekly planner",
        "grey, blue, small, large, graphite, natural",
    ),
}  # fmt: skip

HOURS = np.array([1, 3, 5, 5, 5, 5, 6, 6, 5, 5, 5, 6, 8, 10, 12, 11, 8, 4], dtype=float)
"""How many visits begin at 6, 7, ... 23 o'clock: a small peak at noon, a large one in the evening."""
WHY = {"intent": 0.68, "category": 0.12, "stray": 0.1, "back": 0.1}
"""Why an event is there, and how often."""
DRIFT = 0.15
"""Standard deviation, from one visit to the next, of the logarithm of a user's taste for a category."""


@dataclass(frozen=True)
class Simulated:
    """The shop's log, its items, and the truth behind them."""

    columns: Mapping[str, NDArray[Any]]
    """[n] each, in order of time: user, session, item (raw ids), time (seconds), dwell (seconds), category (number)."""
    items: Mapping[str, NDArray[Any]]
    """[I] each: item (raw id), title, category (name), price."""
    truth: Mapping[str, NDArray[Any]]
    """What a log does not tell.

    categories [C]         their names, by number
    taste [U, C]           each user's long-term law over the categories; row u belongs to user u + 1
    visit_taste [S, C]     the same at each session, drifted; row s belongs to session s + 1
    intent_category [S]    what each session wants: the number of a category,
    intent_style [S]       and a style, the first word of a title
    style [I]              the style of each item
    weight [I]             how popular an item is within whatever it is chosen from
    why [n]                why each event is there: "intent", "category", "stray" or "back" (a key of `WHY`)
    matches [n]            whether its item has the category and the style of the intent
    """

    def log(self) -> EventLog:
        """The log with its items attached, ready to prepare."""
        from foretaste.data.events import EventLog

        log = EventLog.read(
            dict(self.columns), user="user", session="session", item="item", time="time", columns=("dwell", "category")
        )
        return log.with_items(dict(self.items), item="item")


def shop(n_users: int = 4000, seed: int = 0, *, n_items: int = 1000, visits: float = 6, days: int = 90) -> Simulated:
    """A shop of this size. The defaults train in about a minute.

    `visits` is the mean number of sessions of a user; those that would begin after `days` do not take place.
    """
    room = sum(len(_words(c[1])) * len(_words(c[2])) * (1 + len(_words(c[3]))) for c in CATALOGUE.values())
    if n_users < 1 or not len(CATALOGUE) <= n_items <= room or visits < 1 or days < 1:
        raise ConfigError(
            f"shop: n_users = {n_users}, n_items = {n_items}, visits = {visits}, days = {days}; it takes at least one "
            f"user, visit and day, and {len(CATALOGUE)} to {room} items"
        )
    rng = np.random.default_rng([seed, *b"shop"])
    items, category, style, weight = _catalogue(rng, n_items)
    user, start, long_term, taste = _visits(rng, n_users, visits, days)
    shop_floor, by_category, by_style = (_Shelves(label, weight) for label in (np.zeros_like(style), category, style))

    # What each session wants: a category by taste, and the style of some popular item in it.
    wish = (rng.random((len(user), 1)) > np.cumsum(taste, axis=1)[:, :-1]).sum(1)  # [S]
    wanted = style[by_category.draw(rng, wish)]  # [S]

    # Its events: how many, why each is there, of which item, for how long.
    size = 1 + rng.geometric(0.25, len(user)).clip(max=40)  # [S]
    session = np.repeat(np.arange(len(user)), size)  # [n]
    place = np.arange(len(session)) - np.repeat(np.cumsum(size) - size, size)  # [n] inside the session
    why = np.array(list(WHY))[rng.choice(len(WHY), size=len(session), p=list(WHY.values()))]
    why[(why == "back") & (place < 2)] = "intent"
    chosen = by_style.draw(rng, wanted[session])  # [n] row of `items`
    chosen = np.where(why == "category", by_category.draw(rng, wish[session]), chosen)
    chosen = np.where(why == "stray", shop_floor.draw(rng, np.zeros_like(session)), chosen)
    chosen = chosen[_gone_back_to(rng, why == "back", place)]
    matches = style[chosen] == wanted[session]  # [n]
    dwell = (np.where(matches, 45, 9) * rng.lognormal(0, 0.6, len(session))).clip(1, 900).astype(np.int64)
    before = np.cumsum(dwell) - dwell  # [n] over all sessions
    time = start[session] + before - np.repeat(before[place == 0], size)

    order = np.argsort(time, kind="stable")
    style_names = np.array([word for c in CATALOGUE.values() for word in _words(c[1])])
    return Simulated(
        columns={
            "user": user[session][order] + 1,
            "session": session[order] + 1,
            "item": items["item"][chosen][order],
            "time": time[order],
            "dwell": dwell[order],
            "category": category[chosen][order],
        },
        items=items,
        truth={
            "categories": np.array(list(CATALOGUE)),
            "taste": long_term,
            "visit_taste": taste,
            "intent_category": wish,
            "intent_style": style_names[wanted],
            "style": style_names[style],
            "weight": weight,
            "why": why[order],
            "matches": matches[order],
        },
    )


def _words(text: str) -> list[str]:
    return text.split(", ")


def _catalogue(rng: np.random.Generator, n_items: int) -> tuple[dict[str, NDArray[Any]], Ints, Ints, Floats]:
    """The items as a table; and of each its category, its style (numbered over all categories) and its weight."""
    titles: list[str] = []
    category: list[int] = []
    style: list[int] = []
    typical: list[float] = []
    share = np.diff(np.linspace(0, n_items, len(CATALOGUE) + 1).astype(int))
    first = 0  # number of the category's first style
    for number, (price, styles, things, finishes) in enumerate(CATALOGUE.values()):
        parts = _words(styles), _words(things), ["", *(f", {finish}" for finish in _words(finishes))]
        shape = tuple(len(part) for part in parts)
        for cell in rng.choice(int(np.prod(shape)), size=share[number], replace=False):
            look, thing, finish = np.unravel_index(cell, shape)
            titles.append(f"{parts[0][look]} {parts[1][thing]}{parts[2][finish]}")
            category.append(number)
            style.append(first + int(look))
            typical.append(price)
        first += shape[0]
    table: dict[str, NDArray[Any]] = {
        "item": 10_001 + rng.permutation(n_items),
        "title": np.array(titles),
        "category": np.array(list(CATALOGUE))[category],
        "price": np.ceil(typical * rng.lognormal(0, 0.4, n_items)) - 0.1,
    }
    weight: Floats = np.power(1.0 + rng.permutation(n_items), -0.8)  # [I]
    return table, np.array(category), np.array(style), weight


def _visits(rng: np.random.Generator, n_users: int, visits: float, days: int) -> tuple[Ints, Ints, Floats, Floats]:
    """Who comes when: user [S], start [S] in seconds; taste of each user [U, C], and at each session [S, C]."""
    count = rng.geometric(1 / visits, n_users)  # [U]
    user = np.repeat(np.arange(n_users), count)  # [S]
    opening = np.cumsum(count) - count  # [U] each user's first session
    gap = 1 + rng.lognormal(1, 1, len(user)).astype(np.int64)  # [S] days since the last visit
    gap[opening] = rng.integers(days, size=n_users)  # the first day
    day = np.cumsum(gap)
    day -= (day[opening] - gap[opening])[user]
    hour = rng.choice(np.arange(6, 6 + len(HOURS)), size=len(user), p=HOURS / HOURS.sum())
    start = START + 86_400 * day + 3600 * hour + rng.integers(3600, size=len(user))

    long_term = rng.dirichlet(np.full(len(CATALOGUE), 0.4), n_users)  # [U, C]
    walk = np.cumsum(rng.normal(0, DRIFT, (len(user), len(CATALOGUE))), axis=0)  # [S, C]
    walk -= walk[opening][user]
    taste = (long_term[user] + 1e-6) * np.exp(walk)
    taste /= taste.sum(1, keepdims=True)
    open_ = day < days
    return user[open_], start[open_], long_term, taste[open_]


class _Shelves:
    """Items by a label, ready to be drawn by weight among those with the same label."""

    def __init__(self, label: Ints, weight: Floats) -> None:
        self.items = np.argsort(label, kind="stable")  # [I] shelf after shelf
        self.ends = np.concatenate([[0.0], np.cumsum(weight[self.items])])  # [I + 1]
        self.begin = np.searchsorted(label[self.items], np.arange(label.max() + 2))  # [labels + 1]

    def draw(self, rng: np.random.Generator, label: Ints) -> Ints:
        """[n]: an item with each of these labels [n]."""
        low, high = self.ends[self.begin[label]], self.ends[self.begin[label + 1]]
        place = np.searchsorted(self.ends, low + (high - low) * rng.random(len(label)), side="right") - 1
        chosen: Ints = self.items[place.clip(self.begin[label], self.begin[label + 1] - 1)]
        return chosen


def _gone_back_to(rng: np.random.Generator, back: NDArray[np.bool_], place: Ints) -> Ints:
    """[n]: the event whose item each event shows: itself, or an earlier one of the session, never the one just left."""
    n = np.arange(len(place))
    source = np.where(back, n - 2 - (rng.random(len(n)) * (place - 1)).astype(np.int64), n)
    while back[source].any():  # back to an event that itself went back
        source = np.where(back[source], source[source], source)
    return source
