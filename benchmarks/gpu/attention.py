"""Attention with one head beside PyTorch's scaled_dot_product_attention: all keys; padded, with lengths from T/2 to T;
causal, with the keys up to the query's own step."""
import numpy as np
import torch

from gpu.sides import FRESH, Program, compared, judged, tf32_mode
from minilstm import device
from minilstm.attention import attend, attend_backward

FORMS = ("dense", "padded", "causal")
RESULTS = ("context", "dq", "dk", "dv")


class Case:
    """Both programs on the same numbers: PyTorch's have an axis for the heads, (B,1,T,d)."""

    def __init__(self, sides, B, T, d, form):
        self.sides, self.form = sides, form
        self.qkv = [[sides.random(B, 1, T, d).requires_grad_() for _ in range(3)] for _ in range(FRESH)]
        lengths = np.linspace(max(T // 2, 1), T, B).round() if form == "padded" else np.full(B, T)
        mask = np.arange(T) < lengths[:, None]                                          # (B,T)
        self.masks = dict.fromkeys(("key_mask", "query_mask"), device.to_device(mask)) if form == "padded" else {}
        self.real = torch.from_numpy(mask)[:, None].to(sides.where)
        self.key_mask = self.real[:, :, None] if form == "padded" else None
        self.d_context = [sides.random(B, 1, T, d) * self.real[..., None] for _ in range(FRESH)]
        self.ours = [[sides.ours(a[:, 0]) for a in (*qkv, d)] for qkv, d in zip(self.qkv, self.d_context)]

    def our_forward(self, n):
        return attend(*self.ours[n % FRESH][:3], causal=self.form == "causal", backend="gpu", **self.masks)

    def our_both(self, n):
        context, cache = self.our_forward(n)
        return context, *attend_backward(cache, self.ours[n % FRESH][3])

    def apply(self, qkv):
        return torch.nn.functional.scaled_dot_product_attention(
            *qkv, attn_mask=self.key_mask, is_causal=self.form == "causal")

    def their_forward(self, n):
        with torch.no_grad():
            return self.apply(self.qkv[n % FRESH])

    def their_both(self, n):
        self.apply(self.qkv[n % FRESH]).backward(self.d_context[n % FRESH])

    def clear(self, n):
        for a in self.qkv[n % FRESH]:
            a.grad = None

    def our_results(self):
        self.sides.poison()
        return {name: self.sides.theirs(a) for name, a in zip(RESULTS, self.our_both(0))}

    def their_results(self, dtype):
        """A padded query has context 0 in ours, and none that means anything in theirs."""
        qkv = [a.detach().to(dtype).requires_grad_() for a in self.qkv[0]]
        context = self.apply(qkv)
        context.backward(self.d_context[0].to(dtype))
        context = context.detach() * self.real[..., None]
        return {name: a[:, 0] for name, a in zip(RESULTS, (context, *(a.grad for a in qkv)))}

    def judgement(self, tf32):
        return judged(self.our_results(), self.our_results(), self.their_results(torch.float32),
                      self.their_results(torch.float64), tf32)


def attention(sides, record, shapes):
    """At shapes (B, T, d)."""
    for shape in shapes:
        for form in FORMS:
            for tf32 in (False, True):
                labels = {"what": "attention", "shape": shape, "form": form, "tf32": tf32}
                with record.attempt(f"attention {shape} {form}"), tf32_mode(tf32):
                    case = Case(sides, *shape, form)
                    case.our_results()                                          # compiles
                    with sides.alone():
                        judgement = case.judgement(tf32)
                        record.row(**labels, **judgement)
                        for work, ours, theirs in (("forward", case.our_forward, case.their_forward),
                                                   ("forward + backward", case.our_both, case.their_both)):
                            row = labels | {"work": work, "result": judgement["result"]}
                            if judgement["result"] != "WRONG":
                                programs = {"ours": Program(ours), "theirs": Program(theirs, case.clear)}
                                row |= compared(sides.times(programs, 0.3))
                            record.row(**row)
