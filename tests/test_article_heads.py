"""The examples of a popular answer, "How can LSTMs be correctly combined with linear layers?": as written, and right.

    1. linear(out[:, -1])           right for full length; under padding it is the state after steps of zeros, and in a
                                    bidirectional net one half has read one step: Pooling("last"), Pooling("ends")
    2. linear(out)                  right; but the loss must know which steps are real
    3. linear(out.mean(dim=1))      right for full length; else it divides by T, not by the length: Pooling("mean")

Numbers are over 50 random nets with PyTorch's initial weights, in the sizes of the examples, in double precision, with
lengths from 5 to 50.
"""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits
from minilstm import masking, sequences
from minilstm.interop import to_pytorch

SEEDS = range(50)
B, T, D, H = 32, 50, 10, 20


def drawn(layer, rng):
    """With PyTorch's initial weights: uniform within 1 / sqrt(H), biases too."""
    for name, p in layer.params.items():
        layer.params[name] = rng.uniform(-1, 1, p.shape) / np.sqrt(H)
    return layer


def lstm(rng, **options):
    return drawn(minilstm.LSTM(D, H, dtype="float64", **options), rng)


def linear(rng):
    return drawn(minilstm.Linear(H, 1, dtype="float64"), rng)


def outputs(net, x, mask=None):
    return net.forward(x, mask, cache=False)[0].y


def full(rng):
    return rng.standard_normal((B, T, D))


def ragged(rng, features=D):
    """Sequences of 5 to 50 steps, the longest of them of 50."""
    lengths = rng.integers(5, T + 1, B)
    lengths[0] = T
    return [rng.standard_normal((length, features)) for length in lengths], lengths


def of_each(net, several, pool):
    """What a pooling says of each sequence by itself (B,H)."""
    return np.stack([pool(outputs(net, sequence[None])[0]) for sequence in several])


def off_by(found, right):
    """As a part of the length of what is right."""
    return np.linalg.norm(found - right) / np.linalg.norm(right)


def largest(array):
    return np.abs(array).max()


def within(values, low, high):
    """All of some numbers lie in a range, and the range is not much wider than they need."""
    assert low < min(values) < 1.5 * low and high / 1.5 < max(values) < high, (min(values), max(values))


def over_seeds(measure):
    return [measure(np.random.default_rng(seed)) for seed in SEEDS]


def more_padding(x, mask, steps=30):
    return np.pad(x, ((0, 0), (0, steps), (0, 0))), np.pad(mask, ((0, 0), (0, steps)))


# ------------------------------------------------------------------------------------------------- 1. the last state

def test_the_last_output_of_full_sequences_is_the_final_state():
    def check(rng):
        net = lstm(rng)
        out, _ = net.forward(full(rng))
        assert same_bits(out.y[:, -1], out.h_n[0, 0])

    over_seeds(check)


def test_the_last_output_of_padded_sequences_is_another_state():
    """By 66 to 86 % of its length; with the mask given, but read at the same place, by more than 90 %: 0 stands there.
    At the last real step it is that of each sequence alone, and more padding changes no bit."""
    def error(rng):
        net, (several, _) = lstm(rng), ragged(rng)
        x, mask = sequences.pad(several)
        alone, skipped = of_each(net, several, lambda y: y[-1]), outputs(net, x, mask)
        assert not skipped[~mask].any()
        last = masking.last_valid(skipped, mask)
        assert_close(last, alone, "same formulas, float64")
        longer, longer_mask = more_padding(x, mask)
        assert same_bits(masking.last_valid(outputs(net, longer, longer_mask), longer_mask), last)
        return off_by(outputs(net, x)[:, -1], alone), off_by(skipped[:, -1], alone)

    blind, at_the_end = zip(*over_seeds(error))
    within(blind, 0.55, 1.0)
    within(at_the_end, 0.8, 1.0)


def test_the_last_output_of_a_bidirectional_net_is_right_in_one_half():
    """In the other half a single step was read, the last one: it is off by 94 to 130 % of its length.  The two
    ends are h_n of both directions."""
    def error(rng):
        net, x = lstm(rng, bidirectional=True), full(rng)
        out, _ = net.forward(x)
        right = np.concatenate(list(out.h_n[0]), axis=1)
        assert same_bits(out.y[:, -1, :H], right[:, :H]) and same_bits(out.y[:, 0, H:], right[:, H:])
        assert same_bits(out.y[:, -1, H:], outputs(net, x[:, -1:])[:, 0, H:])
        assert same_bits(minilstm.Pooling("ends", dtype="float64").forward(out.y)[0], right)
        return off_by(out.y[:, -1, H:], right[:, H:])

    within(over_seeds(error), 0.8, 1.5)


# ----------------------------------------------------------------------------------------------------- 2. every step

def test_a_linear_layer_on_all_steps_is_one_on_each_and_no_answer_knows_the_future():
    def check(rng):
        model, x = minilstm.Sequential(lstm(rng), linear(rng)), full(rng)
        y, _ = model.forward(x)
        states = outputs(model.layers[0], x)
        for t in range(0, T, 7):
            assert_close(y[:, t], model.layers[1].forward(states[:, t].copy())[0], "same formulas, float64")
        x[:, 25:] += 1
        moved = model.forward(x)[0]
        assert same_bits(moved[:, :25], y[:, :25]) and (moved[:, 25:] != y[:, 25:]).all()

    over_seeds(check)


def test_a_loss_over_padding_tells_of_the_padding():
    """Padded to 50 and to 100 steps, with targets of variance 1: the error of one and the same net is 0.60, and 0.31,
    in the median.  The masked one is 1.03, the same for both, whatever stands in the padding."""
    def losses(rng):
        several, lengths = ragged(rng)
        model, wanted = minilstm.Sequential(lstm(rng), linear(rng)), [rng.standard_normal((n, 1)) for n in lengths]
        found = []
        for steps in (50, 100):
            x, mask = sequences.pad(several, length=steps)
            target, _ = sequences.pad(wanted, length=steps)
            blind, _ = minilstm.mean_squared_error(model.forward(x)[0], target)
            x[~mask], target[~mask] = np.nan, np.nan
            y, cache = model.forward(x, mask)
            loss, dy = minilstm.mean_squared_error(y, target, mask)
            assert not dy[~mask].any() and not model.backward(cache, dy)[~mask].any()
            found += [blind, loss]
        return found

    blind_50, loss_50, blind_100, loss_100 = np.array(over_seeds(losses)).T
    assert np.allclose(loss_50, loss_100, rtol=1e-12, atol=0)
    within(loss_50, 0.85, 1.2)
    within(blind_50, 0.4, 0.85)
    within(blind_100, 0.2, 0.45)


def test_a_loss_over_padding_has_another_gradient():
    """Also when its size is put right: it is off by 80 % of its length, in the median."""
    def error(rng):
        several, lengths = ragged(rng)
        x, mask = sequences.pad(several)
        target, _ = sequences.pad([rng.standard_normal((n, 1)) for n in lengths])
        model = minilstm.Sequential(lstm(rng), linear(rng))
        found = []
        for given, share in ((None, mask.mean()), (mask, 1)):
            y, cache = model.forward(x, given)
            model.zero_grads()
            model.backward(cache, minilstm.mean_squared_error(y, target, given)[1])
            found.append(np.concatenate([g.ravel() for _, layer in model.walk() for g in layer.grads.values()]) / share)
        return off_by(*found)

    assert np.median(over_seeds(error)) == pytest.approx(0.8, abs=0.1)


# --------------------------------------------------------------------------------------------------------- 3. pooling

def test_the_mean_over_padding_is_the_mean_times_length_over_steps():
    """Without a mask it is off by 19 to 47 % of its length; and skipping the steps makes it worse, 40 to 64 %, since
    the sum is right then, and still divided by T."""
    def error(rng):
        net, (several, lengths) = lstm(rng), ragged(rng)
        x, mask = sequences.pad(several)
        right = of_each(net, several, lambda y: y.mean(axis=0))
        skipped = outputs(net, x, mask)
        assert_close(skipped.mean(axis=1), right * (lengths / T)[:, None], "same formulas, float64")
        pooled = masking.masked_mean(skipped, mask)
        assert_close(pooled, right, "same formulas, float64")
        longer, longer_mask = more_padding(x, mask)
        assert same_bits(masking.masked_mean(outputs(net, longer, longer_mask), longer_mask), pooled)
        return off_by(outputs(net, x).mean(axis=1), right), off_by(skipped.mean(axis=1), right)

    blind, skipped = zip(*over_seeds(error))
    within(blind, 0.15, 0.6)
    within(skipped, 0.3, 0.8)


def test_the_maximum_over_padding_may_be_a_zero_that_no_step_had():
    def wrong(rng):
        net, (several, _) = lstm(rng), ragged(rng)
        x, mask = sequences.pad(several)
        right, skipped = of_each(net, several, lambda y: y.max(axis=0)), outputs(net, x, mask)
        assert_close(masking.masked_max(skipped, mask)[0], right, "same formulas, float64")
        where = skipped.max(axis=1) > right + 1e-12
        assert not skipped.max(axis=1)[where].any()
        return where.mean()

    found = over_seeds(wrong)
    assert np.median(found) > 0.005 and max(found) > 0.03


# ---------------------------------------------------------------------------------------------- models that are right

def learn(head, target_of, masked, seed=0):
    """Train LSTM, head, Linear on sequences of 5 to 25 numbers -> the error on fresh ones, as a part of that of a
    constant: padded as in training, and with 35 more steps.  masked: with NaN in the padding; or zeros, and no mask."""
    def batch(seed):
        rng = np.random.default_rng(seed)
        numbers = [rng.standard_normal(n).astype("float32") for n in rng.integers(5, 26, 256)]
        x, mask = sequences.pad(numbers, length=25)
        if masked:
            x[~mask] = np.nan
        if head is None:                                                # an answer at every step
            return x, mask, sequences.pad([target_of(s) for s in numbers], length=25)[0]
        return x, mask, np.array([[target_of(s)] for s in numbers], "float32")

    layers = (minilstm.LSTM(1, 16, seed=seed), *([] if head is None else [minilstm.Pooling(head)]),
              minilstm.Linear(16, 1, seed=seed))
    model = minilstm.Sequential(*layers)
    x, mask, target = batch(seed)
    minilstm.fit(model, x, target, mask if masked else None, epochs=25, optimizer=minilstm.Adam(0.02), seed=seed,
                 progress=False)
    x, mask, target = batch(1000 + seed)
    found = []
    for more in (0, 35):
        longer, longer_mask = more_padding(x, mask, more)
        y, _ = model.forward(longer, longer_mask if masked else None)
        y, wanted = (y[:, 0], target[:, 0]) if head else (y[longer_mask], target[mask])
        found.append(np.square(y - wanted).mean() / wanted.var())
    return found


def test_the_last_real_state_learns_what_the_last_output_does_not():
    """To say the last number: an error below 1 % of that of a constant, where the net that walks on over zeros has more
    than 20 %."""
    as_trained, more = learn("last", lambda s: s[-1], masked=True)
    assert as_trained == more < 0.01
    assert min(learn("last", lambda s: s[-1], masked=False)) > 0.2


def test_an_answer_at_every_step_learns_with_the_mask():
    """To say the number of two steps before: below 1 %, and padding that counts makes it several times as much."""
    def two_before(s):
        return np.concatenate([np.zeros(2, "float32"), s[:-2]])

    as_trained, more = learn(None, two_before, masked=True)
    assert as_trained == more < 0.01
    assert min(learn(None, two_before, masked=False)) > 3 * more


def test_the_masked_mean_learns_what_holds_for_any_padding():
    """To say the mean: below 2 %.  The mean over T has more than 5 %; and it has learned one amount of padding, so that
    35 more steps double that at least."""
    as_trained, more = learn("mean", lambda s: 3.6 * s.mean(), masked=True)
    assert as_trained == more < 0.02
    as_trained, more = learn("mean", lambda s: 3.6 * s.mean(), masked=False)
    assert more > 2 * as_trained > 0.1


# ------------------------------------------------------------------------------------------------ the same in PyTorch

@pytest.mark.peers
def test_pytorch_does_the_same_with_the_same_weights():
    """The three heads as they are written there, with padding; packed; and what it returns beside its outputs."""
    torch = pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    rng = np.random.default_rng()
    net, (several, lengths) = lstm(rng), ragged(rng)
    x, mask = sequences.pad(several)
    theirs = to_pytorch(net)

    def close(ours, tensor):
        assert_close(ours, tensor.detach().numpy(), "pytorch, float64")

    with torch.no_grad():
        out, _ = theirs(torch.tensor(x))
        assert isinstance(_, tuple) and [tuple(state.shape) for state in _] == 2 * [(1, B, H)], "not the cell state"
        blind = outputs(net, x)
        close(blind[:, -1], out[:, -1, :])
        close(blind.mean(axis=1), torch.mean(out, dim=1))
        head = linear(rng)
        layer = torch.nn.Linear(H, 1).double()
        layer.weight[:], layer.bias[:] = torch.tensor(head.params["weight"]), torch.tensor(head.params["bias"])
        close(head.forward(blind)[0], layer(out))
        packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths, batch_first=True,
                                                         enforce_sorted=False)
        out, (h_n, _) = theirs(packed)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    skipped = outputs(net, x, mask)
    close(skipped, out)
    close(masking.last_valid(skipped, mask), h_n[0])
    assert not out[:, -1][torch.tensor(lengths < T)].any(), "packing does not make the last output right"
    close(masking.masked_mean(skipped, mask) * (lengths / T)[:, None], out.mean(dim=1))
