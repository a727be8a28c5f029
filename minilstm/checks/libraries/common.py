"""What the models of the laws share: random batches for a layer of some shape, lengths of a mask, halves."""
import numpy as np

from ..model import Cannot


class Shaped:
    """A model with the shapes of a minilstm layer, whoever computes it."""
    any_mask = True

    def __init__(self, like):
        """like: a minilstm LSTM, GRU, RNN or GRUD"""
        self.like = like
        self.dtype = like.dtype
        self.reverse = tuple(direction.reverse for direction in like.directions)

    def draw(self, rng, B, T):
        like = self.like
        shapes = {"x": (B, T, like.input_size), "dy": (B, T, like.output_size)}
        for state, width in zip(like.cell.states, like.widths):
            shapes[f"{state}0"] = shapes[f"d{state}_n"] = (like.num_layers, len(like.directions), B, width)
        return {name: rng.standard_normal(shape).astype(self.dtype) for name, shape in shapes.items()}


def initial_states(batch):
    return {name: batch[name] for name in ("h0", "c0") if name in batch}


def lengths_of(mask):
    """(B,T) -> (B,).  Raises Cannot if there is padding before a real step."""
    lengths = mask.sum(axis=1)
    if (mask != (np.arange(mask.shape[1]) < lengths[:, None])).any():
        raise Cannot("it takes lengths: no padding before a real step")
    return lengths


def halves_of(layer):
    """For each direction of a minilstm layer one that walks forward with its weights."""
    if len(layer.directions) > 1 and (layer.num_layers > 1 or layer.merge != "concat"):
        raise Cannot("its directions cannot be told apart")
    halves = []
    for direction in layer.directions:
        half = type(layer)(**layer.arguments() | {"bidirectional": False, "reverse": False}, dtype=layer.dtype.name,
                           backend=layer.backend, seed=None)
        half.load_state_dict({name: layer.params[name + direction.suffix] for name in half.params})
        halves.append(half)
    return halves
