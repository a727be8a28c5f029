"""One model with every kind of layer in it: for the file of today's format, and for the tests of saving."""
import numpy as np

import minilstm


def model(rng):
    """Random weights throughout; one Linear is used twice."""
    shared = minilstm.Linear(2, 2)
    every = minilstm.Sequential(
        minilstm.LSTM(2, 3, num_layers=2, bidirectional=True), minilstm.GRU(6, 4, bidirectional=True),
        minilstm.RNN(8, 3), minilstm.RNN(3, 4, activation="relu"), minilstm.LSTM(4, 2, peephole=True),
        minilstm.Sequential(minilstm.LSTM(2, 2, coupled=True), shared), shared,
        minilstm.LSTM(2, 4, proj_size=3, num_layers=2, dropout=0.5),
        minilstm.LSTM(3, 3, layer_norm=True, zoneout_c=0.2),
        minilstm.GRU(3, 2, layer_norm=True, recurrent_dropout=0.5), minilstm.Linear(2, 1, bias=False))
    for _, layer in every.walk():
        for name, p in layer.params.items():
            layer.params[name] = (0.7 * rng.normal(size=p.shape)).astype(p.dtype)
    return every


def batch(rng):
    """x (3,5,2) and a mask."""
    return rng.normal(size=(3, 5, 2)).astype("float32"), np.arange(5) < np.array([5, 2, 3])[:, None]
