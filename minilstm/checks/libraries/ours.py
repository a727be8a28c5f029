"""minilstm's layers, and pooling of any kind."""
import numpy as np

from .common import Shaped, halves_of, initial_states


class Ours(Shaped):
    """A minilstm LSTM, GRU or RNN: any cell, layers, directions, backend."""

    def __init__(self, layer):
        super().__init__(layer)
        self.layer = layer.astype(layer.dtype)          # a copy: its ``grads`` are used here

    def run(self, batch, mask=None):
        out, cache = self.layer.forward(batch["x"], mask=mask, **initial_states(batch))
        self.layer.zero_grads()
        gradients = self.layer.backward(cache, **{name: d for name, d in batch.items() if name.startswith("d")})
        of_weights = {"d " + name: g.copy() for name, g in self.layer.grads.items()}
        return out._asdict() | gradients._asdict() | of_weights

    def halves(self):
        return [Ours(half) for half in halves_of(self.layer)]


class Pooling:
    """A function of all steps of each row: pool(x, mask, dpooled) -> pooled (B,F), dx (B,T,F)."""
    any_mask = True
    reverse = ()

    def __init__(self, pool, dtype="float32", features=3):
        self.pool = pool
        self.dtype = np.dtype(dtype)
        self.features = features

    def draw(self, rng, B, T):
        shapes = {"x": (B, T, self.features), "dpooled": (B, self.features)}
        return {name: rng.standard_normal(shape).astype(self.dtype) for name, shape in shapes.items()}

    def run(self, batch, mask=None):
        mask = np.ones(batch["x"].shape[:2], bool) if mask is None else mask
        pooled, dx = self.pool(batch["x"], mask, batch["dpooled"])
        return {"pooled": pooled, "dx": dx}
