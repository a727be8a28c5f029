"""What a recurrent layer draws at random in training: dropout between layers, recurrent dropout, zoneout.

    dropout             y of every layer but the top one: each number is 0 with probability p, else divided by 1 - p, so
                        that its mean stays.  Other numbers at every step (Srivastava et al. 2014; PyTorch's dropout)
    recurrent dropout   h, where U reads it: each unit is 0 with probability p, else divided by 1 - p.  The same units
                        for all steps of a sequence (Gal and Ghahramani 2016; ``cells/products.py``)
    zoneout             each unit of a state stays, with probability p, what it was.  Other units at every step (Krueger
                        et al. 2017; ``recurrence/reference.py``)

Outside training nothing is drawn: dropout is then absent, and zoneout takes its mean, s = p * s_prev + (1 - p) * s_new.

Numbers are drawn for real steps alone, so padding changes none.  Each kind has a stream of its own, and each call in
training is a draw with a number, so that any call can be repeated.  They are drawn on the host, by NumPy: a layer on a
GPU gets copies, and the same numbers as any other.

Where a sequence is read in segments (``Layer.forward_from``) each is a part of the draw: dropout and zoneout draw other
numbers in each part, while the units that recurrent dropout drops are the same in all of them.  For that they are drawn
for all rows of the batch, those without a real step too.
"""
import numpy as np

from ..arguments import flag, natural, probability
from .layer import Counter, stream


class Noise:
    """The probabilities of a layer, and its streams.  dropout, recurrent_dropout: probabilities; zoneout: dict state ->
    probability; seed and identity: as for ``stream``, a seed of None counts as 0."""

    def __init__(self, dropout, recurrent_dropout, zoneout, seed, identity):
        self.dropout = probability("dropout", dropout)
        self.recurrent_dropout = probability("recurrent_dropout", recurrent_dropout)
        self.zoneout = {state: probability(f"zoneout_{state}", p) for state, p in zoneout.items()}
        self.seed = natural("seed", 0 if seed is None else seed)
        self.identity = identity
        self.counter = Counter()

    @property
    def draws(self):
        """Is anything drawn in training?"""
        return any((self.dropout, self.recurrent_dropout, *self.zoneout.values()))

    def arguments(self):
        """As the layer's constructor has them."""
        return {"dropout": self.dropout, "recurrent_dropout": self.recurrent_dropout,
                **{f"zoneout_{state}": p for state, p in self.zoneout.items()}}

    def draw(self, mask, dtype, training, number, arrays, part=()):
        """-> Drawn.  ``number``: of the draw; None takes the next one.  arrays: the module of ``minilstm/arrays`` that
        mask is one of, and what is drawn will be.  part: of the draw, a tuple of numbers; () for a whole sequence."""
        if not isinstance(part, tuple):
            raise TypeError(f"part: expected a tuple, such as (0,) for the first segment, got {part!r}")
        part = tuple(natural("part", number) for number in part)
        return Drawn(self, mask, dtype, number_of_draw(training, number, self.counter), arrays, part)


def number_of_draw(training, number, counter):
    """The number that a call of forward with ``training`` and ``draw`` stands for; None outside training."""
    if not flag("training", training):
        if number is not None:
            raise ValueError(f"draw: expected None outside training, got {number!r}")
        return None
    return counter.take() if number is None else natural("draw", number)


class Drawn:
    """One draw: every call of a method gives the arrays for the next layer or direction; None stands for no effect."""

    def __init__(self, noise, mask, dtype, number, arrays, part):
        self.noise, self.dtype, self.arrays, self.training = noise, dtype, arrays, number is not None
        chances = {"dropout": noise.dropout, "recurrent dropout": noise.recurrent_dropout,
                   **{f"zoneout of {state}": max(noise.zoneout.values()) for state in noise.zoneout}}
        self.streams = {kind: stream(noise.seed, kind, *noise.identity, number,
                                     *(() if kind == "recurrent dropout" else part))
                        for kind, chance in chances.items() if chance and self.training}
        self.whole = part == ()
        self.shape = mask.shape
        self.mask = arrays.to_numpy(mask) if self.streams else None

    def dropout(self, F):
        """(B,T,F) factors for y."""
        p = self.noise.dropout
        return self._at_real_steps("dropout", F, lambda u: (u >= p) / (1 - p)) if self.training and p else None

    def keep(self, R):
        """(B,R) factors for what U reads of h."""
        p = self.noise.recurrent_dropout
        if not (self.training and p):
            return None
        # a row without real steps in one segment may have some in another, where its units must be the same
        read = self.mask.any(axis=1) if self.whole else np.ones(len(self.mask), bool)
        factors = np.zeros((len(read), R), self.dtype)
        factors[read] = (self.streams["recurrent dropout"].random((np.count_nonzero(read), R)) >= p) / (1 - p)
        return self.arrays.from_numpy(factors)

    def zoneout(self, widths):
        """For each state (B,T,width), the part of it that stays."""
        if not any(self.noise.zoneout.values()):
            return None
        if not self.training:
            return tuple(self.arrays.from_numpy(np.full((*self.shape, width), p, self.dtype))
                         for p, width in zip(self.noise.zoneout.values(), widths))
        return tuple(self._at_real_steps(f"zoneout of {state}", width, lambda u, p=p: u < p)
                     for (state, p), width in zip(self.noise.zoneout.items(), widths))

    def _at_real_steps(self, kind, width, factor_of):
        """factor_of(u) with u uniform in [0, 1) at real steps, 0 elsewhere."""
        factors = np.zeros((*self.shape, width), self.dtype)
        factors[self.mask] = factor_of(self.streams[kind].random((np.count_nonzero(self.mask), width)))
        return self.arrays.from_numpy(factors)
