"""`foretaste lists`."""

from __future__ import annotations

from pathlib import Path

from foretaste.options import Count, Device, Flag, Json


def lists(
    run: Path,
    data: Path,
    /,
    *,
    out: Path,
    k: Count = 10,
    leave_out_seen: Flag = False,
    part: str = "1/1",
    recall: float | None = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """The best items for every user of a training at once, written to a file: for mails, a cache, a table.

    Example: `foretaste lists clicks-narm clicks --out lists.parquet -k 20 --leave-out-seen`

    Each user is answered as the service would that had taken in all of their events; who has none in the training or
    validation part has no id in a prepared log, and no list (`--split none` puts all into training).

    Parameters
    ----------
    run
        A saved recommender.
    data
        The folder it was trained from.
    out
        File for the lists, .parquet or .csv: user, rank, item, title, score. What stands there is replaced.
    k
        How many a user.
    leave_out_seen
        Leave out what each user has had.
    part
        Some of the users alone: 3/8 takes every eighth, from the third on. 1/8 to 8/8 are all, on as many machines.
    recall
        Choose among some hundred candidates from an index that is to find so large a share of the exact best items,
        such as 0.99: for millions of items. Needs foretaste[ann], a CPU, and a model of one inner product; where k and
        what is left out come to more than 500 together, a list is made exactly. Default: score every item.
    """
    from foretaste.cli import show
    from foretaste.data.prepared import Prepared
    from foretaste.listing import Share, write_lists
    from foretaste.models.saved import Trained
    from foretaste.training.progress import Ranked

    share, trained, log = Share.of(part), Trained.load(run, device), Prepared.open(data)
    found = write_lists(
        trained, log, out, k, leave_out_seen=leave_out_seen, share=share, recall=recall, progress=Ranked()
    )
    new = found["not_in_training"]
    more = f"; {new:,} others were not in training and have no id here" if new else ""
    if found["had_everything"]:
        more = f"; {found['had_everything']:,} have had everything{more}"
    if recall is not None:
        recalls = found["index"].get("recall", {}).items()
        held = ", ".join(f"{held:.1%} of the best {size}" for size, held in recalls)
        of = f" that finds {held} after histories which the model makes up" if held else ", which gains nothing here"
        more += f"; {found['by_index']:,} of the lists by an index{of}"
    users = f"{found['users']:,} {'user' if found['users'] == 1 else 'users'}"
    show(found, f"written: {out}, for {users}{more}", json)
