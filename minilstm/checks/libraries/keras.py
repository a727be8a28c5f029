"""Keras' layers, on its PyTorch backend."""
import numpy as np

from ...interop import from_keras, to_keras
from .common import Shaped, halves_of, initial_states


class Keras(Shaped):
    """A built Keras LSTM, GRU or SimpleRNN, or a Bidirectional of one, with ``return_sequences``, ``return_state`` and
    ``zero_output_for_mask``: all that ``to_keras(layer, return_state=True)`` makes."""

    def __init__(self, layer):
        super().__init__(from_keras(layer))
        check_backend()
        if not (layer.return_sequences and layer.return_state):
            raise ValueError("layer: expected return_sequences=True and return_state=True, "
                             f"got {layer.return_sequences} and {layer.return_state}")
        self.layer = layer

    def run(self, batch, mask=None):
        import torch
        tensors = {name: torch.tensor(a, requires_grad=not name.startswith("d")) for name, a in batch.items()}
        names = list(initial_states(batch))
        initial = [state for states in zip(*(tensors[name][0] for name in names)) for state in states]  # h, c of each
        y, *final = self.layer(tensors["x"], initial_state=initial,                                     # direction
                               mask=None if mask is None else torch.tensor(mask))
        y = y.flip(1) if self.reverse == (True,) else y                     # Keras' order is that of the walk
        found = {"y": y} | {f"{name[0]}_n": torch.stack(final[k::len(names)])[None] for k, name in enumerate(names)}
        for variable in self.layer.weights:
            variable.value.grad = None
        torch.autograd.backward(list(found.values()), [tensors["d" + name] for name in found])
        found |= {"d" + name: tensors[name].grad for name in ("x", *names)}
        found |= {f"d {variable.path}": variable.value.grad for variable in self.layer.weights}
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    def halves(self):
        return [Keras(to_keras(half, return_state=True)) for half in halves_of(self.like)]


class KerasPooling:
    """A GlobalMaxPooling1D or GlobalAveragePooling1D; the mask reaches it as from the layer below."""
    any_mask = True
    reverse = ()

    def __init__(self, layer, features=3):
        check_backend()
        self.layer = layer
        self.dtype = np.dtype(layer.compute_dtype)
        self.features = features

    def draw(self, rng, B, T):
        shapes = {"x": (B, T, self.features), "dpooled": (B, self.features)}
        return {name: rng.standard_normal(shape).astype(self.dtype) for name, shape in shapes.items()}

    def run(self, batch, mask=None):
        import torch
        x = torch.tensor(batch["x"], requires_grad=True)
        if mask is not None:
            x._keras_mask = torch.tensor(mask)
        pooled = self.layer(x)
        pooled.backward(torch.tensor(batch["dpooled"]))
        return {"pooled": pooled.detach().numpy(), "dx": x.grad.numpy()}


def check_backend():
    import keras
    if keras.backend.backend() != "torch":
        raise ValueError(f"KERAS_BACKEND: expected 'torch', whose gradients are taken here, got "
                         f"{keras.backend.backend()!r}")
