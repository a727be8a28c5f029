"""Truncated backpropagation through time: gradients of a sequence too long to go back through at once.

After every k1 steps the loss of these k1 steps goes back through the last k2 steps, and no further:

    k1 = 3, k2 = 5        0 1 2 3 4 5 6 7 8         steps
                                l l l               the second loss
                            < < < < <               the steps through which it goes back

What a step did that is further back than that changes the loss all the same, for states are never cut: they go on
from chunk to chunk.  But the gradient does not know, so nothing teaches a net to remember what it needs only after more
than k2 steps.  Every error looks back over k2 - k1 steps at least.  With k1 = k2, the usual choice, that is none: the
last error of a chunk sees its k2 steps, and the first its own step alone.  With k1 = 1 every error sees k2 steps, at k2
times the work.  Memory is that of k2 steps, whatever T.

Source: Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent network trajectories,
Neural Computation 2 (1990), whose BPTT(h; h') has h = k2 and h' = k1.
"""
import itertools
import math
from typing import NamedTuple

import numpy as np

from ..arguments import describe, instance, positive
from ..layers.checkpointed import Checkpointed
from ..layers.segments import on_host, part_of, sequences_of
from .clipping import clip_global_norm
from .data import Data, blamed
from .losses import mean_squared_error
from .optimizers import Optimizer


class TruncatedPass(NamedTuple):
    """What ``truncated_bptt`` returns."""
    loss: float             # the mean over all steps that count
    state: tuple            # after the last step, from which the next call may go on


class Segment(NamedTuple):
    """Some steps that backward may still reach."""
    begin: int              # its first step
    cache: object           # of forward_from
    dy: np.ndarray | None   # the gradient of y; None once it has been put to use


def truncated_bptt(model, x, target, mask=None, *, k1, k2, loss=mean_squared_error, loss_mask=None, state=None,
                   optimizer=None, clip_norm=1.0):
    """One pass over sequences, the loss of every k1 steps going back through the last k2 -> TruncatedPass(loss, state).

    model        a Layer that can read a sequence in segments: LSTM, GRU or RNN of one direction, Sequential of these
                 and layers that look at one step alone; on the host
    x, target, mask, loss_mask      as for ``fit``, of one batch of B sequences: (B,T,D), (B,T,F), (B,T)
    k1, k2       steps, k1 <= k2.  The last chunk is shorter where k1 does not divide T.  With an optimizer, a
                 model with ``Checkpointed`` in it needs k1 = k2, and a T that k1 divides or is not longer: else a chunk
                 goes back into the one before, which is to be computed again by weights that have moved since
    loss         function (y, target, mask) -> (loss, dy), the mean over the steps that count
    state        that of an earlier call, to go on in the same sequences; None: the beginning.  No gradient goes back
                 beyond the first step of this call
    optimizer    None: gradients are added to ``grads``, those of the mean over all steps that count; with k2 >= T it is
                 the full gradient.  Otherwise it takes a step after each chunk, with the gradient of the mean over the
                 chunk alone.  What goes further back then goes through steps made with earlier weights
    clip_norm    as for ``fit``, for steps of the optimizer

    A chunk in which nothing counts moves nothing.  Raises TypeError or ValueError for what does not fit,
    FloatingPointError for a loss, or for gradients given to the optimizer, that are not finite; what was done for the
    chunks before is done.

    What the model draws in training is one draw for a call: the units that recurrent dropout drops stay, while dropout
    and zoneout go on drawing."""
    k1, k2 = positive("k1", k1), positive("k2", k2)
    if k1 > k2:
        raise ValueError(f"k1, k2: expected k1 <= k2, or errors would be left out, got {k1} and {k2}")
    if optimizer is not None:
        instance("optimizer", optimizer, Optimizer, "minilstm.Adam()")
    x = sequences_of(on_host("model", model), x, mask)
    B, T = x.shape[:2]
    if optimizer and T > k1 and (k1 < k2 or T % k1) and _computes_again(model):
        raise ValueError("k1, k2: expected k1 = k2, and a T that k1 divides, with an optimizer and a model with "
                         f"Checkpointed in it, got {k1} and {k2}, and T={T}")
    counts = _counts(target, mask, loss_mask, B, T)
    state = model.start(B) if state is None else state
    everything = np.count_nonzero(counts)
    total, reached = 0.0, []
    counter = getattr(model, "counter", None)
    draw, number = counter.take() if model.takes_training and counter else None, itertools.count()
    for begin, end, segments in chunks(T, k1, k2):
        reached = [segment for segment in reached if segment.begin >= end - k2]
        here = np.count_nonzero(counts[:, begin:end])
        for steps in segments:
            drawing = {"training": True, "draw": draw, "part": (next(number),)} if model.takes_training else {}
            (y, state), cache = model.forward_from(x[:, steps], state, part_of(mask, steps), **drawing)
            value, dy = loss(y, target[:, steps], counts[:, steps])
            if not math.isfinite(value):
                seen = Data({"x": x[:, :steps.stop]}, target, mask if mask is None else mask[:, :steps.stop],
                            counts & _at(steps, T), None)
                raise FloatingPointError(f"steps {steps.start} to {steps.stop - 1}: the loss is {value}"
                                         f"{blamed(seen, np.arange(B))}")
            n = np.count_nonzero(counts[:, steps])
            total += float(value) * n
            dy = dy * dy.dtype.type(n / max(1, here if optimizer else everything))
            reached.append(Segment(steps.start, cache, dy))
        if here and optimizer:
            model.zero_grads()
        if here:
            _back(model, reached)
        if here and optimizer:
            clip_global_norm(model, math.inf if clip_norm is None else clip_norm)
            optimizer.step(model)
        reached = [segment._replace(dy=None) for segment in reached]
    return TruncatedPass(total / max(1, everything), state)


def chunks(T, k1, k2):
    """The chunks of T steps, one after the other: (begin, end, segments), these as slices.  Cuts are where a chunk
    ends, and k2 steps before that, so that a backward pass of k2 steps begins and ends at cuts."""
    for begin in range(0, T, k1):
        end = min(begin + k1, T)
        later = (begin + k2) // k1 * k1 + k1                                # the end whose k2 steps begin in here
        cuts = {later - k2, T - k2} if later < T else {T - k2}
        cuts = [begin, *sorted(cut for cut in cuts if begin < cut < end), end]
        yield begin, end, [slice(*pair) for pair in zip(cuts, cuts[1:])]


def _at(steps, T):
    """True at these steps (T,)."""
    where = np.zeros(T, bool)
    where[steps] = True
    return where


def _computes_again(layer):
    """Is it, or has it in it, a Checkpointed?"""
    return isinstance(layer, Checkpointed) or any(map(_computes_again, layer.children().values()))


def _back(model, segments):
    """From the end of the last segment to the beginning of the first."""
    d_state = None
    for segment in reversed(segments):
        _, d_state = model.backward_to(segment.cache, segment.dy, d_state)


def _counts(target, mask, loss_mask, B, T):
    """The steps whose error counts (B,T), after a look at the shapes."""
    if not isinstance(target, np.ndarray) or target.shape[:2] != (B, T):
        raise ValueError(f"target: expected a NumPy array (B={B}, T={T}, ...), got {describe(target)}")
    if loss_mask is not None and (getattr(loss_mask, "dtype", None) != bool or loss_mask.shape != (B, T)):
        raise ValueError(f"loss_mask: expected bool (B={B}, T={T}), got {describe(loss_mask)}")
    counts = np.ones((B, T), bool) if mask is None else mask
    return counts if loss_mask is None else counts & loss_mask
