"""A step of training beside PyTorch's: LSTM, Linear, mean squared error, gradients clipped, Adam."""
import torch

import minilstm
from gpu.sides import FRESH, Program, compared, relative_error, tf32_mode

ALLOWED_ERROR = {False: 1e-3, True: 1e-2}       # of the weights after three steps: Adam divides by small gradients
CLIP, RATE = 1.0, 1e-3


class Step:
    """Both models from the same weights, each with its optimizer."""

    def __init__(self, sides, T, B, H):
        self.sides = sides
        self.layers = torch.nn.LSTM(H, H, batch_first=True).to(sides.where), torch.nn.Linear(H, 1).to(sides.where)
        self.model = minilstm.Sequential(minilstm.LSTM(H, H, backend="gpu"), minilstm.Linear(H, 1, backend="gpu"))
        for ours, theirs in zip(self.model.layers, self.layers):
            weights = {name: p.detach().cpu().numpy() for name, p in theirs.named_parameters()}
            ours.load_state_dict({name: weights[name] for name in ours.params})
        self.weights = [p for layer in self.layers for p in layer.parameters()]
        self.adam = minilstm.Adam(RATE)
        self.their_adam = torch.optim.Adam(self.weights, RATE, fused=not sides.simulated)
        self.data = [(sides.random(B, T, H), sides.random(B, T, 1)) for _ in range(FRESH)]
        self.ours_of = [[sides.ours(a) for a in pair] for pair in self.data]

    def ours(self, n):
        x, target = self.ours_of[n % FRESH]
        y, cache = self.model.forward(x)
        _, dy = minilstm.mean_squared_error(y, target)
        self.model.zero_grads()
        self.model.backward(cache, dy)
        minilstm.clip_global_norm(self.model, CLIP)
        self.adam.step(self.model)

    def theirs(self, n):
        x, target = self.data[n % FRESH]
        lstm, linear = self.layers
        loss = torch.nn.functional.mse_loss(linear(lstm(x)[0]), target)
        self.their_adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.their_adam.step()

    def error(self):
        """After three steps of both: the largest relative difference of a weight array."""
        for n in range(3):
            self.ours(n)
            self.theirs(n)
        return max(relative_error(self.sides.theirs(ours.params[name]), dict(theirs.named_parameters())[name])
                   for ours, theirs in zip(self.model.layers, self.layers) for name in ours.params)


def training(sides, record, shapes):
    """At shapes (T, B, H)."""
    for shape in shapes:
        for tf32 in (False, True):
            with record.attempt(f"training {shape}"), tf32_mode(tf32):
                Step(sides, *shape).ours(0)                                     # compiles
                with sides.alone():
                    step = Step(sides, *shape)
                    row = {"what": "training", "shape": shape, "tf32": tf32, "error": step.error(), "result": "WRONG"}
                    if row["error"] <= ALLOWED_ERROR[tf32]:
                        times = sides.times({"ours": Program(step.ours), "theirs": Program(step.theirs)})
                        row |= {"result": "ok"} | compared(times)
                    record.row(**row)
