"""What becomes of the two directions of a layer: y from the halves y_f (forward) and y_b (backward in time).

    concat   y = [y_f, y_b]             (B,T,2H), as in PyTorch
    sum      y = y_f + y_b              (B,T,H), like the next two
    ave      y = (y_f + y_b) / 2
    mul      y = y_f * y_b

The names are Keras'.  With one direction y is that half, whatever the rule.
"""
RULES = ("concat", "sum", "ave", "mul")


def width(rule, directions, H):
    """The last axis of y."""
    return directions * H if rule == "concat" else H


def merge(arrays, rule, halves):
    """arrays: a module of ``minilstm/arrays``; halves: one (B,T,H) for each direction -> y; of one half it is that
    array itself."""
    if len(halves) == 1:
        return halves[0]
    y_f, y_b = halves
    if rule == "concat":
        return arrays.side_by_side([y_f, y_b])
    if rule == "sum":
        return arrays.add(y_f, y_b)
    if rule == "ave":
        return arrays.scaled(arrays.add(y_f, y_b), 0.5)
    return arrays.multiply(y_f, y_b)


def merge_backward(arrays, rule, halves, dy):
    """The gradients of the halves, a list, each contiguous.  Only "mul" looks at the halves; the others need their
    number."""
    if len(halves) == 1:
        return [dy]
    y_f, y_b = halves
    H = dy.shape[2] // 2
    if rule == "concat":
        return [arrays.columns(dy, 0, H), arrays.columns(dy, H, 2 * H)]             # y = [y_f, y_b]
    if rule == "sum":
        return [dy, dy]                                                             # y = y_f + y_b
    if rule == "ave":
        return [arrays.scaled(dy, 0.5)] * 2                                         # y = (y_f + y_b) / 2
    return [arrays.multiply(dy, y_b), arrays.multiply(dy, y_f)]                     # y = y_f * y_b
