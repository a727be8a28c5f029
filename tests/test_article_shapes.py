"""The examples of a popular answer, "How can LSTM input dimensions be altered?", run as they are written; and right.

Three jobs: one more feature, sequences of different lengths in one batch, another length when predicting.  Keras runs
on PyTorch, and its nets get random biases, as training would give them."""
import numpy as np
import pytest

from minilstm.interop import from_keras
from minilstm.sequences import add_features, pad

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:__array__ implementation")]
LENGTHS = [15, 20, 10]


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
