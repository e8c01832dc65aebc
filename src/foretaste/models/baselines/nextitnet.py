"""NextItNet and WaveNet CNN: dilated convolutions over the past, so that a few layers see a long way back.

A layer of kernel K and dilation l makes its column t of the columns t, t - l, ... t - (K - 1) l of the layer below:

    conv(x)_t = W_1 x_{t - (K-1) l} + ... + W_K x_t + c                 columns before the first event are zeros

NextItNet: Yuan, Karatzoglou, Arapakis, Jose, He, "A Simple Convolutional Generative Network for Next Item
Recommendation", WSDM 2019. Blocks of two layers, with l and 2 l: x + relu(LN(conv(relu(LN(conv(x)))))). Then
score(i) = w_i . relu(x_t) + b_i, trained by a full softmax at every step.

WaveNet CNN: the model of this name in ASARS' tables, very likely the `CNNNet` of the library Spotlight, after van den
Oord et al., "WaveNet", 2016, without its gates and skip connections. Each layer is x + tanh(conv(x)), and items are
scored by the vectors with which they are read: score(i) = E_i . x_t + b_i.

Left open, and what was chosen:
- NextItNet. The paper has two kinds of block; this is the one that it calls (b), the one its authors' code builds. The
  other, of 1 x 1 convolutions around a dilated one, is left out. Sizes are the code's: 100 channels, dilations (1, 4),
  that is 1, 2, 4, 8 layer by layer: 31 events are seen; more `repeats` see on. All weights from N(0, 0.02^2) cut off at
  two deviations; no dropout. Its steps take 32 sequences; the recipe's 512 targets.
- WaveNet. ASARS gives no size. Spotlight's defaults are kernel 3, one layer, 32 channels; here its channels are the 64
  of the models beside it, and there are four layers, 1, 2, 4, 8, for one layer of kernel 3 sees no more than three
  events. `nonlinearity="relu"` and `residual=False` are Spotlight's other choices; its column for "nothing yet", which
  all columns of deeper layers see as an event, is left out. Initial weights: E from N(0, 1/D^2), b 0, as there. The
  recipe's loss is the full softmax: which one ASARS took is not known; `loss = "hinge"` and the like are settings.
- Both may drop entries of embedded items and of what is compared with items, which neither source does.
- Before any event x = 0: the biases alone speak.

Convolutions hold no weights over the past, so there is nothing to explain.

A layer is one product: its K columns side by side, times [K D, D]. On a CPU that is about as fast as PyTorch's conv1d,
and faster for short rows and long dilations; on a GPU it stays exact, where convolutions round to TF32 by default.

State: of each layer the last (K - 1) l columns that it read, and the newest column of the last; NextItNet's 30 x 100 +
100 numbers are 12.4 kB, WaveNet's 7.9 kB. One event: O(layers K D^2), however long the history.

Reference figures. WaveNet CNN in ASARS' Table 2, MRR@20 / recall@20: MovieLens .0101 / .0543, Recsys15 .1006 / .3373,
Tianchi .0712 / .1602. NextItNet has none on a log with a common protocol: session-rec's for YOOCHOOSE 1/64 were pasted
from another row. Ours there, recall@20 / MRR@20: WaveNet .7022 / .3026, NextItNet .6783 / .2985.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.config import Config as Settings
from foretaste.models.contract import Events, Query, SequenceModel, State
from foretaste.models.layers import at_length, slide
from foretaste.spaces import RATE, SIZE, THIRD, Space

Dilations = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class _Layer(nn.Linear):
    """A causal convolution as one product."""

    def __init__(self, size: int, kernel: int, dilation: int) -> None:
        super().__init__(kernel * size, size)
        self.taps = range(0, kernel * dilation, dilation)                  # K places, the oldest column's first
        self.keeps = self.taps[-1]                                         # (K - 1) l

    def forward(self, columns: Tensor) -> Tensor:
        """columns [B, (K - 1) l + T, D] -> [B, T, D]"""
        T = columns.shape[1] - self.keeps
        return super().forward(torch.cat([columns[:, tap : tap + T] for tap in self.taps], -1))


class _Dilated(SequenceModel):
    """What the two have in common: layers that read, each from its own ring of columns."""

    class Config(Settings):
        """Sizes."""

        embedding_size: int = Field(64, ge=1)
        """D, size of an item's vector, and channels of every layer."""
        kernel_size: int = Field(3, ge=1)
        """K, columns that a layer reads together."""
        repeats: int = Field(1, ge=1)
        """The whole stack so many times over."""
        embedding_dropout: float = Field(0.0, ge=0, lt=1)
        """Share of embedding entries dropped in training."""
        output_dropout: float = Field(0.0, ge=0, lt=1)
        """Share of entries dropped in training before items are scored."""
        scope: Literal["session", "user"] = "session"
        """What one row is: a session, or all of a user's events."""

    space: ClassVar[Space] = {
        "learning_rate": RATE, "embedding_size": SIZE, "embedding_dropout": THIRD, "output_dropout": THIRD,
    }  # fmt: skip
    masters = ("popularity", "last_item", "order", "set")
    short_of: ClassVar = {"user_taste": "its rows are sessions: it does not know whose"}
    beyond = "user_taste"

    config: _Dilated.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        c = self.config
        self.scope = c.scope
        self.item = nn.Embedding(n_items + 1, c.embedding_size, padding_idx=0)  # E [1 + I, D]
        dilations = self._dilations() * c.repeats
        layers = [_Layer(c.embedding_size, c.kernel_size, l) for l in dilations]
        self.layers = nn.ModuleList(layers)
        self.keeps = [layer.keeps for layer in layers]
        self.bias = nn.Parameter(torch.zeros(n_items))                     # b [I]

    @abstractmethod
    def _dilations(self) -> tuple[int, ...]:
        """Of each layer, once through the stack."""

    @abstractmethod
    def _stack(self, x: Tensor, conv: Callable[[int, Tensor], Tensor]) -> Tensor:
        """All layers: x [B, T, D] -> [B, T, D]; conv(n, x) is the n-th layer's convolution."""

    @abstractmethod
    def _ask(self, top: Tensor) -> Tensor:
        """What is compared with items: [..., D] -> [..., D]"""

    def initial_state(self, users: Tensor) -> State:
        """Columns of zeros."""
        D, B = self.config.embedding_size, len(users)
        rings = {f"ring{n}": self.bias.new_zeros(B, R, D) for n, R in enumerate(self.keeps)}  # [B, R, D] newest last
        return {**rings, "top": self.bias.new_zeros(B, D)}

    def forward(self, events: Events, state: State, at: Tensor | None = None) -> tuple[Query, State]:
        """One pass over every row (see `SequenceModel.forward`)."""
        lengths, after = events.lengths(), {}

        def conv(n: int, x: Tensor) -> Tensor:
            ring = state[f"ring{n}"]                                       # [B, R, D]
            after[f"ring{n}"] = slide(ring, x, lengths)
            found: Tensor = self.layers[n](torch.cat([ring, x], 1))        # [B, T, D]
            return found

        x = nn.functional.dropout(self.item(events.items), self.config.embedding_dropout, self.training)  # [B, T, D]
        top = self._stack(x, conv)                                         # [B, T, D]
        after["top"] = at_length(top, state["top"], lengths)               # [B, D]
        return self._compared(top if at is None else top[at]), after       # [B, T, D] or [N, D]

    def query(self, state: State, now: Tensor | None = None) -> Query:
        """The same answer from the state alone."""
        return self._compared(state["top"])[:, None]                       # [B, 1, D]

    def _compared(self, top: Tensor) -> Tensor:
        return nn.functional.dropout(self._ask(top), self.config.output_dropout, self.training)  # [..., D]

    def item_bias(self) -> Tensor | None:
        """b."""
        return self.bias                                                   # [I]


class NextItNet(_Dilated):
    """Blocks of two dilated convolutions. Score: one inner product and a bias; indexable."""

    class Config(_Dilated.Config):
        """Sizes."""

        embedding_size: int = Field(100, ge=1)
        """D, size of an item's vector, and channels of every layer."""
        dilations: Dilations = (1, 4)
        """l of each block, whose two layers have l and 2 l."""

    summary = "blocks of dilated convolutions over the past, with layer normalisation"
    paper = "Yuan et al., A Simple Convolutional Generative Network for Next Item Recommendation, WSDM 2019"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 512, "epochs": 30}

    config: NextItNet.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        D = self.config.embedding_size
        self.norms = nn.ModuleList(nn.LayerNorm(D, eps=1e-8) for _ in self.layers)
        self.out = nn.Parameter(torch.empty(n_items, D))                   # w [I, D]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
            elif not name.startswith("norms"):
                nn.init.zeros_(weight)
        with torch.no_grad():
            self.item.weight[0] = 0

    def _dilations(self) -> tuple[int, ...]:
        return tuple(l * twice for l in self.config.dilations for twice in (1, 2))

    def _stack(self, x: Tensor, conv: Callable[[int, Tensor], Tensor]) -> Tensor:
        for n in range(0, len(self.layers), 2):
            inside = torch.relu(self.norms[n](conv(n, x)))                 # [B, T, D]
            x = x + torch.relu(self.norms[n + 1](conv(n + 1, inside)))     # [B, T, D]
        return x

    def _ask(self, top: Tensor) -> Tensor:
        return torch.relu(top)

    def item_matrix(self) -> Tensor:
        """w."""
        return self.out                                                    # [I, D]


class WaveNet(_Dilated):
    """Single dilated convolutions. Score: one inner product with an item's input vector and a bias; indexable."""

    class Config(_Dilated.Config):
        """Sizes and variants."""

        dilations: Dilations = (1, 2, 4, 8)
        """l of each layer."""
        nonlinearity: Literal["tanh", "relu"] = "tanh"
        """What a layer's output goes through."""
        residual: bool = True
        """A layer's output is added to what it read; False: it takes its place."""

    summary = "single dilated convolutions over the past; ASARS' WaveNet CNN, Spotlight's CNNNet"
    paper = "after van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016, as ASARS compares with it"
    recipe: ClassVar = {"loss": "softmax", "optimizer": "adam", "learning_rate": 1e-3, "batch": 512, "epochs": 30}

    config: WaveNet.Config

    def __init__(self, n_items: int, config: Settings | None = None, n_users: int = 0) -> None:
        super().__init__(n_items, config, n_users)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's current generator (see `contract.seeded`)."""
        nn.init.normal_(self.item.weight, std=1 / self.config.embedding_size)
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]
        with torch.no_grad():
            self.bias.zero_()
            self.item.weight[0] = 0

    def _dilations(self) -> tuple[int, ...]:
        return self.config.dilations

    def _stack(self, x: Tensor, conv: Callable[[int, Tensor], Tensor]) -> Tensor:
        through = torch.tanh if self.config.nonlinearity == "tanh" else torch.relu
        for n in range(len(self.layers)):
            made = through(conv(n, x))                                     # [B, T, D]
            x = x + made if self.config.residual else made                 # [B, T, D]
        return x

    def _ask(self, top: Tensor) -> Tensor:
        return top

    def item_matrix(self) -> Tensor:
        """E."""
        return self.item.weight[1:]                                        # [I, D]
