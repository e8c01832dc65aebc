"""What ASARS keeps of a user across sessions: equations 5-7, 9, 11, 12, 14, which the paper describes, not evaluates.

    h_u <- GRU(h_session * dev_u, h_u)       when a session has ended: its final hidden state enters   (eq. 14)
    e_u(t) = e_u + alpha_u h_u(t)            the user's vector drifts                                  (eq. 11)
    score += mu + b_u + alpha_u dev_u(t)     the level of a user                                       (eq. 12)
    score += b_i + b_{i,bin}                 an item's bias moves with the bin of the last gap         (eq. 9)

Left open by the paper, and what was chosen:
- dev_u is that of timeSVD++, sign(t - t_u) |t - t_u|^0.4 with t_u the mean time of the user's training events, in
  days. A session is scaled by the dev of its last event. An unknown user has the mean time of all events.
- b_{i,bin} as a full table would be items times a thousand bins. Here it is c_i . z_bin, of rank `bin_rank`: what the
  query carries is z_bin, and the score stays one inner product. A rank of the number of bins is the full table.
- Equation 14 is printed with dev_i(t); the text speaks of the user, and it is dev_u here.
- mu and b_u + alpha_u dev_u(t) are alike for all items. They move no ranking, and no loss that compares items sees
  them; only TOP1's second term and the cross-entropy of single items do. So they stand in the scores of training alone:
  in float32 a level of 10 would make equal what differs by a millionth. `level = False` leaves them out altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.data.sequences import Sequences
from foretaste.models.bins import given
from foretaste.models.contract import State

if TYPE_CHECKING:
    from foretaste.models.asars import ASARS

DAY = 86_400


class Temporal(nn.Module):
    """The weights of equations 5-14 beside those of the model."""

    origin: Tensor
    mean_day: Tensor

    def __init__(self, n_items: int, n_users: int, c: ASARS.Config) -> None:
        super().__init__()
        self.drift, self.scaled, self.item_bins, self.leveled = c.drift, c.dev, c.item_bins, c.level
        if c.drift:
            self.gru = nn.GRU(c.hidden_size, c.user_size, batch_first=True)
        if c.drift or c.level:
            self.alpha = nn.Parameter(torch.empty(1 + n_users))            # alpha_u; row 0: users unknown
        if c.item_bins:
            self.item_bin = nn.Parameter(torch.empty(n_items, c.bin_rank))  # c_i
            self.bin = nn.Embedding(1 + c.max_bins, c.bin_rank)            # z_bin
        if c.level:
            self.mu = nn.Parameter(torch.empty(()))
            self.user_bias = nn.Parameter(torch.empty(1 + n_users))        # b_u
        self.register_buffer("origin", torch.zeros(()))                    # the log's first day, a whole number
        self.register_buffer("mean_day", torch.zeros(1 + n_users))         # t_u, days after the first

    @property
    def clocked(self) -> bool:
        """Does any term need to know how late it is?"""
        return self.leveled or (self.drift and self.scaled)

    def count(self, log: Sequences) -> None:
        """The mean time of each user's events in the training log."""
        if not self.clocked:
            return
        times, size = np.asarray(given(log.times, "times")), len(self.mean_day)
        if not len(times):
            return
        origin = int(times.min()) // DAY
        days = (times - origin * DAY) / DAY                                # [n]
        user = np.repeat(np.asarray(log.user_numbers, dtype=np.int64), np.diff(log.users))  # [n]
        events = np.bincount(user, minlength=size)                         # [1 + U]
        mean = np.bincount(user, days, minlength=size) / np.maximum(events, 1)  # [1 + U]
        mean[(events == 0) | (np.arange(len(mean)) == 0)] = days.mean()
        self.origin.fill_(origin)
        self.mean_day.copy_(torch.from_numpy(mean[:size]))

    def dev(self, users: Tensor, times: Tensor) -> Tensor:
        """dev_u(t): users [...], times [...] seconds -> [...]"""
        day = (times - self.origin.nan_to_num(0.0).long() * DAY).to(self.mean_day.dtype) / DAY  # [...]
        since = day - self.mean_day[users]                                 # [...]
        return since.sign() * since.abs() ** 0.4

    def tastes(
        self, ended: Tensor, hidden: Tensor, users: Tensor, times: Tensor | None, before: Tensor
    ) -> Tensor:
        """h_u after each event [B, T, H_u].

        ended [B, T]: True where a session begins and another ends by it; hidden [B, T, H] and times [B, T] of the event
        before each; users [B]; before [B, H_u].
        """
        which = ended.cumsum(1)                                            # [B, T] sessions ended so far
        row, place = ended.nonzero(as_tuple=True)                          # [n]
        if not len(row):
            return before[:, None].expand(-1, ended.shape[1], -1)          # [B, T, H_u]
        last = hidden[row, place]                                          # [n, H]
        if self.scaled:
            assert times is not None
            last = last * self.dev(users[row], times[row, place])[:, None]  # [n, H]  eq. 14
        inputs = last.new_zeros(len(ended), int(which.max()), last.shape[1])  # [B, S, H]
        inputs[row, which[row, place] - 1] = last
        tastes = torch.cat([before[:, None], self.gru(inputs, before[None])[0]], 1)  # [B, 1 + S, H_u]
        return tastes[torch.arange(len(ended), device=row.device)[:, None], which]

    def asks(self, view: State) -> list[Tensor]:
        """What the query carries for the biases: z_bin [..., R]; in training mu + b_u + alpha_u dev_u(t) [..., 1]."""
        parts = []
        if self.item_bins:
            parts.append(self.bin(view["bin"]))                            # [..., R]  eq. 9
        if self.leveled and self.training:
            dev = self.dev(view["user"], view["last"]) * (view["seen"] > 0)  # [...] none before the first event
            level = self.mu + self.user_bias[view["user"]] + self.alpha[view["user"]] * dev  # [...]  eq. 12
            parts.append(level[..., None])
        return parts

    def answers(self, rows: Tensor) -> list[Tensor]:
        """The items' side of the same inner product: c_i [I, R]; in training 1 [I, 1]."""
        ones = [torch.ones_like(rows[:, :1])] if self.leveled and self.training else []
        return [self.item_bin, *ones] if self.item_bins else ones
