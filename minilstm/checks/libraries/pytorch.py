"""PyTorch's recurrent modules, with the two ways in which people hide padding from them."""
from ...interop import from_pytorch, to_pytorch
from ..model import Cannot
from .common import Shaped, halves_of, initial_states, lengths_of


class PyTorchPacked(Shaped):
    """A torch.nn.LSTM, GRU or RNN with ``batch_first=True`` on packed sequences."""
    any_mask = False

    def __init__(self, module):
        super().__init__(from_pytorch(module))
        self.module = module

    def walk(self, x, mask, initial):
        """-> y, final states."""
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
        if mask is None:
            return self.module(x, initial)
        lengths = lengths_of(mask)
        try:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        except RuntimeError as error:
            raise Cannot(str(error)) from error
        y, final = self.module(packed, initial)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], final

    def run(self, batch, mask=None):
        import torch
        tensors = {name: torch.tensor(a, requires_grad=not name.startswith("d")) for name, a in batch.items()}
        names = list(initial_states(batch))
        initial = tuple(tensors[name].flatten(0, 1) for name in names)      # (layers,dirs,B,H) -> (layers*dirs,B,H)
        y, final = self.walk(tensors["x"], mask, initial if len(initial) > 1 else initial[0])
        final = final if isinstance(final, tuple) else (final,)
        found = {"y": y} | {f"{name[0]}_n": s.reshape(tensors[name].shape) for name, s in zip(names, final)}
        self.module.zero_grad()
        torch.autograd.backward(list(found.values()), [tensors["d" + name] for name in found])
        found |= {"d" + name: tensors[name].grad for name in ("x", *names)}
        found |= {"d " + name: p.grad for name, p in self.module.named_parameters()}
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    def halves(self):
        return [type(self)(to_pytorch(half)) for half in halves_of(self.like)]


class PyTorchZeroed(PyTorchPacked):
    """The same on an input that is multiplied by the mask: padding as zeros."""
    any_mask = True

    def walk(self, x, mask, initial):
        return self.module(x if mask is None else x * x.new_tensor(mask[:, :, None]), initial)
