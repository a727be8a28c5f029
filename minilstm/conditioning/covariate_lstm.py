"""The layer of ``cells/lstm_covariate.py``."""
from .. import backends, cells
from ..arguments import positive
from ..cells.lstm_covariate import free, joined
from ..layers.lstm import LSTM
from ..layers.recurrent import Recurrent


class CovariateLSTM(Recurrent):
    """An LSTM that reads a sequence and a covariate, which has a candidate and an input gate of its own.

    x (B,T,D+C): the covariate is the last C features, and may be another at every step.

    input_size      D
    covariate_size  C
    The other arguments are those of ``LSTM``.

    params: those of an LSTM with five gates, i, f, g, o and the covariate's gate k: weight_ih_l0 (5H,D+C), weight_hh_l0
    (5H,H); the biases bias_ih_l0, bias_hh_l0 (6H,), of which the last block is the candidate's; and weight_covariate_l0
    (H,C), the candidate's weights.  The names of the backward direction end in _reverse."""

    backends = backends.HOST
    forward, backward = LSTM.forward, LSTM.backward

    def __init__(self, input_size, covariate_size, hidden_size, *, bidirectional=False, reverse=False, merge="concat",
                 recurrent_dropout=0.0, zoneout_h=0.0, zoneout_c=0.0, dtype="float32", backend="cpu", seed=0):
        D, self.covariate_size = positive("input_size", input_size), positive("covariate_size", covariate_size)
        super().__init__(cells.LSTM_COVARIATE_CELL, D + self.covariate_size, hidden_size, num_layers=1,
                         bidirectional=bidirectional, reverse=reverse, merge=merge, dropout=0.0,
                         recurrent_dropout=recurrent_dropout, zoneout=(zoneout_h, zoneout_c), dtype=dtype,
                         backend=backend, seed=seed)
        self.identity += (self.covariate_size,)

    def arguments(self):
        common = super().arguments()
        del common["num_layers"], common["dropout"]
        return common | {"input_size": self.input_size - self.covariate_size, "covariate_size": self.covariate_size}

    def _named(self, layer, direction, weights):
        W_gates, W_s, U_gates = free(weights.W, weights.U, self.covariate_size)
        gates = super()._named(layer, direction, weights._replace(W=W_gates, U=U_gates))
        return gates | {self._own_name(direction): W_s}

    def _weights(self, layer, direction):
        weights = super()._weights(layer, direction)
        W, U = joined(weights.W, self._param(self._own_name(direction)), weights.U)
        return weights._replace(W=W, U=U)

    def _own_name(self, direction):
        return f"weight_covariate_l0{direction.suffix}"
