"""Where a model runs: a device by name, if this machine has it."""

from __future__ import annotations

import os

import torch

from foretaste.errors import ConfigError


def usable(name: torch.device | str) -> torch.device:
    """The device of this name: "cpu", "cuda", "cuda:1". Raises ConfigError in one sentence where it cannot be used.

    Of the processes that torchrun starts on a machine, each has a GPU of its own by the name "cuda".
    """
    if str(name) == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split(".")[0].splitlines()[0][:80]
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ConfigError(
            f"device = {str(name)!r} cannot be used here ({reason}); this machine has {', '.join(here)}"
        ) from None
    return device
