"""What becomes of the two directions of a layer: y from the halves y_f (forward) and y_b (backward in time).

    concat   y = [y_f, y_b]             (B,T,2H), as in PyTorch
    sum      y = y_f + y_b              (B,T,H), like the next two
    ave      y = (y_f + y_b) / 2
    mul      y = y_f * y_b

The names are Keras'.  With one direction y is that half, whatever the rule.
"""
import numpy as np

RULES = ("concat", "sum", "ave", "mul")


def width(rule, directions, H):
    """The last axis of y."""
    return directions * H if rule == "concat" else H


def merge(rule, halves):
    """halves: one (B,T,H) for each direction -> y; of one half it is that array itself."""
    if len(halves) == 1:
        return halves[0]
    y_f, y_b = halves
    if rule == "concat":
        return np.concatenate([y_f, y_b], axis=2)
    if rule == "sum":
        return y_f + y_b
    if rule == "ave":
        return (y_f + y_b) * y_f.dtype.type(0.5)
    return y_f * y_b


def merge_backward(rule, halves, dy):
    """The gradients of the halves, a list, each contiguous.  Only "mul" looks at the halves; the others need their
    number."""
    if len(halves) == 1:
        return [dy]
    y_f, y_b = halves
    H = dy.shape[2] // 2
    if rule == "concat":
        return [np.ascontiguousarray(d) for d in (dy[:, :, :H], dy[:, :, H:])]      # y = [y_f, y_b]
    if rule == "sum":
        return [dy, dy]                                                             # y = y_f + y_b
    if rule == "ave":
        return [dy * dy.dtype.type(0.5)] * 2                                        # y = (y_f + y_b) / 2
    return [dy * y_b, dy * y_f]                                                     # y = y_f * y_b
