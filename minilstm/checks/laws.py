"""The laws of masking: what a layer of any library must not notice.  They find out; they prove nothing.

    amount of padding       one to nine more padded steps
    side of padding         padding in front in place of padding behind
    content of padding      NaN, infinity or the largest number in a padded step of x
    gradient at padding     the same in the gradient of a padded step's output
    rows are apart          another sequence in one row; here not even rounding is allowed
    order of rows           the rows of the batch in another order
    chunks                  a sequence in pieces, each beginning with the state that the one before it ended with
    ragged rows             rows of several lengths in one batch, in place of each row alone
    holes                   padding between real steps
    empty rows              a row without real steps: it keeps its state, gives 0 and gets 0; the others do not see it
    no mask                 a mask that is True everywhere, in place of none
    directions              a layer that walks from the end, in place of one that walks forward on reversed rows

    from minilstm.checks.laws import LAWS, ask
    from minilstm.checks.libraries.ours import Ours
    print(ask(LAWS["holes"], [Ours(minilstm.LSTM(2, 3))], np.random.default_rng(0)).found)

Each is a function law(model, rng) -> Verdict, and LAWS has them all by name.  It draws a small batch, runs the model on
two forms of it that must be the same to it, and compares real steps, final states and gradients.  One draw may miss
what is broken: ``ask`` takes many.  A model (``model.py``) is a layer of any library, with or without gradients and
states; there are some in ``libraries``.

    B  batch     T  time steps     D  input features     F  output features     mask (B,T) bool, True = a real step
"""
import functools
from typing import NamedTuple

import numpy as np

from .batches import (
    STEPS, WEIGHT, along, batch_axis, clean, differences, draw, of_weights, padded, real, reversed_rows, rows, states,
    steps, worst)
from .model import Cannot

LIMITS = {"float32": 1e-3, "float64": 1e-10}        # a larger deviation is no rounding


class Verdict(NamedTuple):
    """What became of a law."""
    law: str
    deviations: dict        # name of array -> largest deviation; 0 for the same bits, NaN where something is not finite
    limit: float            # up to which a deviation is rounding
    reason: str             # why the model could not be asked: then there are no deviations

    @property
    def kept(self):
        """True or False; None if the model could not be asked."""
        return all(d <= self.limit for d in self.deviations.values()) if self.deviations else None

    @property
    def largest(self):
        return float(np.max([*self.deviations.values()], initial=0))

    @property
    def found(self):
        """In a few words, outputs and states first, then gradients."""
        if not self.deviations:
            return "cannot"
        values = [d for name, d in self.deviations.items() if not name.startswith("d")]
        gradients = [d for name, d in self.deviations.items() if name.startswith("d")]
        return " / ".join(self._words(deviations) for deviations in (values, gradients) if deviations)

    def _words(self, deviations):
        largest = np.max(deviations)
        if np.isnan(largest):
            return "NaN"
        if largest > self.limit:
            return f"BROKEN {largest:.2g}"
        return f"{largest:.0e}" if largest else "bits"


LAWS = {}


def a_law(check=None, *, exact=False):
    """Make a law of a function (model, rng) -> deviations, dict, and put it into LAWS.  exact: not even rounding."""
    if check is None:
        return functools.partial(a_law, exact=exact)
    name = check.__name__.replace("_", " ")

    @functools.wraps(check)
    def judged(model, rng):
        if not hasattr(model, "any_mask"):
            raise TypeError("model: expected one as model.py has it, such as libraries.ours.Ours(layer), got "
                            f"{type(model).__name__}")
        try:
            deviations, reason = check(model, rng), ""
        except Cannot as cannot:
            deviations, reason = {}, str(cannot)
        return Verdict(name, deviations, 0.0 if exact else LIMITS[model.dtype.name], reason)

    LAWS[name] = judged
    return judged


def ask(law, models, rng, times=20):
    """One Verdict over several models and many draws: the worst of each array.  That a model cannot be asked counts
    only if none can."""
    verdicts = [law(model, rng) for model in models for _ in range(times)]
    answers = [verdict for verdict in verdicts if verdict.deviations] or verdicts
    return answers[0]._replace(deviations=worst(*(verdict.deviations for verdict in answers)))


# ------------------------------------------------------------------------------------------------------------ the laws

@a_law
def amount_of_padding(model, rng):
    batch, mask = draw(model, rng)
    expected = real(model.run(batch, mask), mask)
    longer, longer_mask = padded(batch, mask, 0, rng.integers(1, 10))
    return differences(real(model.run(longer, longer_mask), longer_mask), expected)


@a_law
def side_of_padding(model, rng):
    batch, mask = draw(model, rng)
    more = rng.integers(1, 10)
    behind, behind_mask = padded(batch, mask, 0, more)
    before, before_mask = padded(batch, mask, more, 0)
    expected = real(model.run(behind, behind_mask), behind_mask)
    return differences(real(model.run(before, before_mask), before_mask), expected)


@a_law
def content_of_padding(model, rng):
    return with_rubbish(model, rng, "x")


@a_law
def gradient_at_padding(model, rng):
    batch = model.draw(rng, 1, 1)
    if "dy" not in batch or "dx" not in model.run(batch):
        raise Cannot("it has no outputs of steps, or no backward pass")
    return with_rubbish(model, rng, "dy")


@a_law(exact=True)
def rows_are_apart(model, rng):
    batch, mask = draw(model, rng, least_B=2)
    another = clean(model.draw(rng, *mask.shape), mask)
    others = np.arange(len(mask)) != rng.integers(len(mask))
    mixed = {name: np.where(along(name, others, a), a, another[name]) for name, a in batch.items()}
    return differences(rows(model.run(mixed, mask), others), rows(model.run(batch, mask), others))


@a_law
def order_of_rows(model, rng):
    batch, mask = draw(model, rng, least_B=2)
    order = rng.permutation(len(mask))
    found, expected = model.run(rows(batch, order), mask[order]), model.run(batch, mask)
    return differences(found, rows(expected, order) | of_weights(expected))


@a_law
def chunks(model, rng):
    """A gradient goes from chunk to chunk the other way round."""
    if len(model.reverse) != 1:
        raise Cannot("it walks both ways" if model.reverse else "it carries no state")
    batch, mask = draw(model, rng, least_T=2)
    mask = mask if model.any_mask else np.ones_like(mask)
    cut = rng.integers(1, mask.shape[1])
    order = (slice(cut), slice(cut, None))[::-1 if model.reverse[0] else 1]     # of time: the first chunk, the second
    first, second = (steps(batch, part) for part in order)
    masks = [mask[:, part] for part in order]
    middle = states(model.run(first, masks[0]), "_n")
    if not middle:
        raise Cannot("it takes no initial state")
    last = model.run(second | {f"{s}0": state for s, state in middle.items()}, masks[1])
    passed = {f"d{s}_n": last[f"d{s}0"] for s in middle if f"d{s}0" in last}
    begun = model.run(first | passed, masks[0])
    found = begun | {name: a for name, a in last.items() if name.endswith("_n")}
    found |= {name: begun[name] + last[name] for name in of_weights(begun)}
    for name in STEPS & begun.keys():
        parts = (begun, last)[::-1 if model.reverse[0] else 1]
        found[name] = np.concatenate([part[name] for part in parts], axis=1)
    return differences(real(found, mask), real(model.run(batch, mask), mask))


@a_law
def ragged_rows(model, rng):
    return each_alone(model, *draw(model, rng))


@a_law
def holes(model, rng):
    batch, mask = draw(model, rng, least_T=3)
    mask[0, :3] = True, False, True
    return each_alone(model, clean(batch, mask), mask)


@a_law
def empty_rows(model, rng):
    batch, mask = draw(model, rng, least_B=2)
    b = rng.integers(len(mask))
    mask[b] = False
    batch = clean(batch, mask)
    found = model.run(batch, mask)
    others = np.arange(len(mask)) != b
    expected = model.run(rows(batch, others), mask[others])
    row = rows(found, [b])
    unmoved = rows({f"{s}_n": batch[f"{s}0"] for s in states(found, "_n")}
                   | {f"d{s}0": batch[f"d{s}_n"] for s in states(found, "_n") if f"d{s}0" in found}, [b])
    nothing = {name: np.zeros_like(a) for name, a in row.items() if name not in unmoved}
    return worst(differences(rows(found, others) | of_weights(found), expected), differences(row, nothing | unmoved))


@a_law
def no_mask(model, rng):
    batch, mask = draw(model, rng)
    everything = np.ones_like(mask)
    return differences(model.run(batch, everything), model.run(batch))


@a_law
def directions(model, rng):
    """Gradients of weights are left out, since a direction's go by other names when it is a layer of its own."""
    if not any(model.reverse):
        raise Cannot("it only walks forward")
    batch, mask = draw(model, rng)
    found = []
    for k, (half, reverse) in enumerate(zip(model.halves(), model.reverse)):
        own = {name: a if name in STEPS else a[:, k:k + 1] for name, a in batch.items()}
        own["dy"] = np.split(batch["dy"], len(model.reverse), axis=2)[k]
        own = reversed_rows(own, mask) if reverse else own
        result = half.run(own, mask)
        found.append(reversed_rows(result, mask) if reverse else result)
    joined = {name: np.concatenate([result[name] for result in found], axis=2 if name == "y" else 1)
              for name in found[0] if name != "dx" and not name.startswith(WEIGHT)}
    if "dx" in found[0]:
        joined["dx"] = sum(result["dx"] for result in found)
    expected = model.run(batch, mask)
    return differences(real(joined, mask), real({name: expected[name] for name in joined}, mask))


# --------------------------------------------------------------------------------------------------- what laws share

def with_rubbish(model, rng, name):
    """The deviations after five kinds of rubbish at the padded steps of the array ``name``."""
    batch, mask = draw(model, rng, least_T=2)
    expected = model.run(batch, mask)
    found = []
    for rubbish in (np.nan, np.inf, -np.inf, np.finfo(model.dtype).max, rng.standard_normal(batch[name].shape)):
        rubbish = np.asarray(rubbish, model.dtype)
        result = model.run(batch | {name: np.where(mask[:, :, None], batch[name], rubbish)}, mask)
        found.append(differences(real(result, mask), real(expected, mask)))
        if "dx" in result:
            at_padding = result["dx"][~mask]
            found.append(differences({"dx at padding": at_padding}, {"dx at padding": np.zeros_like(at_padding)}))
    return worst(*found)


def each_alone(model, batch, mask):
    """The deviations of a batch from its rows, run one by one on their real steps, without a mask."""
    found = [model.run(steps(rows(batch, [b]), mask[b])) for b in range(len(mask))]
    expected = {}
    for name in found[0]:
        arrays = [result[name] for result in found]
        if name.startswith(WEIGHT):
            expected[name] = sum(arrays)
        else:
            arrays = [a[0] for a in arrays] if name in STEPS else arrays        # real steps one after the other: (n,F)
            expected[name] = np.concatenate(arrays, axis=batch_axis(name))
    return differences(real(model.run(batch, mask), mask), expected)
