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
    """
    from foretaste.cli import show
    from foretaste.data.prepared import Prepared
    from foretaste.listing import write_lists
    from foretaste.models.saved import Trained
    from foretaste.training.progress import Ranked

    trained, log = Trained.load(run, device), Prepared.open(data)
    found = write_lists(trained, log, out, k, leave_out_seen=leave_out_seen, progress=Ranked())
    new = found["not_in_training"]
    more = f"; {new:,} others were not in training and have no id here" if new else ""
    show(found, f"written: {out}, for {found['users']:,} users{more}", json)
