"""The examples of a popular answer, "How can LSTM input dimensions be altered?", run as they are written; and right.

Three jobs: one more feature, sequences of different lengths in one batch, another length when predicting.  Each is put
to a small task, as it is written and right; errors are on fresh data, as parts of the error of a constant.  What Keras
computes is written with NumPy there, and held against Keras below, where it is installed: it runs on PyTorch, and its
nets get random biases, as training would give them."""
import numpy as np
import pytest

import minilstm
from helpers import part_of_constant, same_bits, trained
from minilstm.interop import from_keras
from minilstm.sequences import add_features, pad

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
LENGTHS = [15, 20, 10]
N = 192


# ------------------------------------------------------------------------------------------------ as written, and right

def pad_sequences(data, length):
    """What Keras' function of that name does with padding="post", unless told otherwise: integers."""
    padded = np.zeros((len(data), length, 1), "int32")
    for row, sequence in zip(padded, data):
        row[:len(sequence)] = sequence
    return padded


def ragged(rng, shortest=10, longest=20):
    """Sequences of numbers from 0 to 1, of different lengths."""
    return [rng.random((steps, 1), "float32") for steps in rng.integers(shortest, longest + 1, N)]


def last(several):
    return np.concatenate([sequence[-1:] for sequence in several])


def test_one_more_feature_teaches_nothing_on_random_targets_and_trains_where_it_tells_something():
    """As written the target is noise: the error is that of a constant.  Where the target is how far the two features
    are apart, it is below 5 %, and without the second feature it stays above 30 %."""
    rng = np.random.default_rng(0)
    x, fresh = (add_features(*rng.random((2, N, 20, 1), "float32")) for _ in range(2))
    noise, fresh_noise = rng.random((2, N, 1), "float32")
    assert part_of_constant(trained(2, x, noise), fresh, fresh_noise) > 0.95

    apart, fresh_apart = (array[:, -1, :1] - array[:, -1, 1:] for array in (x, fresh))
    assert part_of_constant(trained(2, x, apart), fresh, fresh_apart) < 0.05
    one, fresh_one = (array[:, :, :1].copy() for array in (x, fresh))
    assert part_of_constant(trained(1, one, apart), fresh_one, fresh_apart) > 0.3


def test_a_second_feature_whose_weights_are_zero_changes_no_bit():
    rng = np.random.default_rng(1)
    one, more = rng.random((2, 6, 20, 1), "float32")
    narrow, wide = minilstm.LSTM(1, 16), minilstm.LSTM(2, 16)
    weights = narrow.state_dict()
    wide.load_state_dict(weights | {"weight_ih_l0": np.pad(weights["weight_ih_l0"], ((0, 0), (0, 1)))})
    assert same_bits(wide.forward(add_features(one, more))[0].y, narrow.forward(one)[0].y)
    with pytest.raises(ValueError, match=r"x: expected float32 \(B, T, D=2\), got float32 \(6, 20, 1\)"):
        wide.forward(one)


def test_padding_as_it_is_written_leaves_zeros_of_which_no_net_can_tell_anything():
    """One axis too many is refused.  Without it, all numbers below 1 have become the integer 0: all sequences get one
    answer, and the error is that of a constant."""
    rng = np.random.default_rng(2)
    several, fresh = ragged(rng), ragged(rng)
    cut, fresh_cut = (pad_sequences(some, 20) for some in (several, fresh))
    assert not cut.any() and not fresh_cut.any() and min(sequence.max() for sequence in several) > 0.5
    with pytest.raises(ValueError, match=r"x: expected float32 \(B, T, D=1\), got float32 \(1, 192, 20, 1\)"):
        minilstm.LSTM(1, 8).forward(cut.astype("float32")[None])
    with pytest.raises(TypeError, match="x: expected float32"):
        minilstm.LSTM(1, 8).forward(cut)
    model = trained(1, cut.astype("float32"), last(several))
    assert np.ptp(model.forward(fresh_cut.astype("float32"))[0]) == 0
    assert part_of_constant(model, fresh_cut.astype("float32"), last(fresh)) > 0.95


def test_padding_trains_as_floats_with_a_mask_and_not_without():
    """To say the last number of 10 to 20: below 5 %, where zeros behind, without a mask, leave more than 60 %."""
    rng = np.random.default_rng(3)
    several, fresh = ragged(rng), ragged(rng)
    (x, mask), (fresh_x, fresh_mask) = pad(several), pad(fresh)
    assert all(same_bits(row[real], sequence) for row, real, sequence in zip(x, mask, several))
    assert part_of_constant(trained(1, x, last(several)), fresh_x, last(fresh)) > 0.6
    assert part_of_constant(trained(1, x, last(several), mask), fresh_x, last(fresh), fresh_mask) < 0.05


def test_trained_on_padding_a_net_answers_another_length_with_no_error_and_wrong():
    """As the text has it: trained on 10 to 20 steps, zeros behind up to 20, and asked for the last number of 15.  It is
    off by more than 30 %, and says something else of the same 15 padded to 20.  Trained with the mask it is off by less
    than 5 %, and both answers have the same bits."""
    rng = np.random.default_rng(4)
    several, fifteen = ragged(rng), ragged(rng, 15, 15)
    x, mask = pad(several, length=20)
    (short, all_real), (padded, padded_mask) = pad(fifteen), pad(fifteen, length=20)
    blind, masked = trained(1, x, last(several)), trained(1, x, last(several), mask)

    assert part_of_constant(blind, short, last(fifteen)) > 0.3
    moved = np.abs(blind.forward(padded)[0] - blind.forward(short)[0]).max()
    assert moved > 0.2 * last(fifteen).std()
    assert part_of_constant(masked, short, last(fifteen), all_real) < 0.05
    assert same_bits(masked.forward(padded, padded_mask)[0], masked.forward(short)[0])


# --------------------------------------------------------------------------------------------------- the same in Keras


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="comparison with Keras: it is not installed (pip install -e '.[peers]')")
    return pytest.importorskip("keras", reason="comparison with Keras: it is not installed (pip install -e '.[peers]')")


def lstm(keras, rng, D, units=64):
    layer = keras.layers.LSTM(units)
    layer.build((None, None, D))
    layer.set_weights([(0.3 * rng.standard_normal(w.shape)).astype("float32") for w in layer.get_weights()])
    return layer


def states(layer, x, mask=None):
    return np.array(layer(x, mask=mask).detach())


@pytest.mark.peers
def test_one_more_feature(keras):
    """Right as it is written: axis 2, and an input of two features.  The old input then fits no longer."""
    rng = np.random.default_rng(0)
    x, more = rng.random((100, 20, 1), dtype="float32"), rng.random((100, 20, 1), dtype="float32")
    both = np.concatenate((x, more), axis=2)
    assert np.array_equal(both, add_features(x, more))
    layer = lstm(keras, rng, 2)
    assert layer.get_weights()[0].shape == (2, 256) and states(layer, both).shape == (100, 64)
    with pytest.raises(Exception, match="shape"):
        layer(x)
    assert np.concatenate((x, more), axis=1).shape == (100, 40, 1), "another axis makes longer sequences, silently"


@pytest.mark.peers
def test_padding_as_it_is_written_cannot_train(keras):
    """``expand_dims`` makes (1,3,20,1) of a batch, which no LSTM takes."""
    rng = np.random.default_rng(1)
    data = [rng.random((steps, 1)) for steps in LENGTHS]
    padded = keras.preprocessing.sequence.pad_sequences(data, maxlen=20, padding="post")
    model = keras.Sequential([keras.layers.LSTM(64), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=4"):
        model.fit(np.expand_dims(padded, axis=0), rng.random((1, 1)), epochs=1, verbose=0)
    assert not padded.any(), "and there would be nothing to learn: all numbers below 1 have become integers"
    data[0] *= 9
    padded = keras.preprocessing.sequence.pad_sequences(data, maxlen=20, padding="post")
    assert padded.any() and same_bits(padded, pad_sequences(data, 20)), "as it is written with NumPy above"


@pytest.mark.peers
def test_padding_without_a_mask_is_another_answer(keras):
    """As floats, and without ``expand_dims``: the states of the shorter sequences are off by more than a tenth of the
    largest number in them; with the mask, there and here, they are those of each sequence alone."""
    rng = np.random.default_rng(2)
    data = [rng.random((steps, 1), dtype="float32") for steps in LENGTHS]
    layer = lstm(keras, rng, 1)
    alone = np.concatenate([states(layer, sequence[None]) for sequence in data])
    padded = keras.preprocessing.sequence.pad_sequences(data, maxlen=20, padding="post", dtype="float32")
    x, mask = pad(data)
    assert np.array_equal(x, padded)
    off = np.abs(states(layer, padded) - alone).max(axis=1) / np.abs(alone).max()
    assert off[0] > 0.1 and off[1] < 1e-6 and off[2] > 0.1
    assert np.abs(states(layer, padded, mask) - alone).max() < 1e-6
    ours = from_keras(layer)
    own = [ours.forward(sequence[None])[0].h_n[0, 0, 0] for sequence in data]
    assert np.array_equal(ours.forward(x, mask)[0].h_n[0, 0], own), "here: the same bits"
    assert np.abs(own - alone).max() < 1e-6


@pytest.mark.peers
def test_another_length_when_predicting(keras, tmp_path):
    """There is no such file.  A net takes 15 steps in place of 20; but the answer for the 15 steps, padded to the 20 of
    training, is another one without a mask."""
    with pytest.raises((OSError, ValueError)):
        keras.models.load_model(tmp_path / "my_lstm_model.h5")
    rng = np.random.default_rng(3)
    layer = lstm(keras, rng, 1)
    x = rng.random((1, 15, 1), dtype="float32")
    padded, mask = pad([x[0]], length=20)
    assert states(layer, rng.random((1, 20, 1), dtype="float32")).shape == states(layer, x).shape
    assert np.abs(states(layer, padded) - states(layer, x)).max() > 0.01
    assert np.abs(states(layer, padded, mask) - states(layer, x)).max() < 1e-6
    ours = from_keras(layer)
    assert np.array_equal(ours.forward(padded, mask)[0].h_n, ours.forward(x)[0].h_n)
