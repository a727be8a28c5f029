"""What the tests share: one table of tolerances with its reasons, one comparison, random layers and batches."""
import numpy as np
import pytest

import minilstm

# Largest allowed |actual - expected| as a part of the largest |expected| in the array, or of SMALL where that is less:
# a gradient through a saturated unit is made of 1 - t*t, which keeps the absolute error of t, not the relative one.
SMALL = 0.1
TOLERANCE = {
    "same formulas, float64": 1e-12,        # another order of summation, and tanh within 3 ulp: some 1e-15 a step,
                                            # a few times 1e-14 where saturated units make it worse
    "same formulas, float32": 2e-4,         # the same at 6e-8 an operation: 1.4e-5 was the worst of many thousand cases
    "normalised, float32": 1e-3,            # layer normalisation divides by what may be small: 3.6e-4 was the worst of
                                            # 19,700 random cases, and both backends were as far from float64
    "pytorch, float64": 1e-10,              # an independent program in the same arithmetic
    "pytorch, float32": 2e-5,               # its float64 numbers against our float32 ones
    "keras": 1e-5,                          # float32 against float32; Keras multiplies matrices in float32 even where
                                            # its layers are float64: 2e-6 was the worst
    "keras, compiled, float64": 1e-12,      # but not where it runs PyTorch's own LSTM and GRU
    "onnxruntime, float32": 1e-5,           # two float32 programs: 1.3e-6 was the worst of the tests, in its own tanh
    "product, float32": 1e-5,               # one chain of 4096 sums: 2.3e-6 was the worst of normal numbers, 3.4e-6
                                            # of positive ones (test_matmul_gpu.py, test_rounding_and_cutting)
    "product, TF32": 2e-3,                  # factors with 10 bits of mantissa: 9.8e-4 for one product, 3.1e-4 for the
                                            # worst sum of 4096
    "TF32, a step after another": 1e-2,     # what goes around is rounded to 10 bits of mantissa at each step: with that
                                            # alone, in float64, 5.5e-3 was the worst of 1,000 LSTMs of 8 to 40 units
    "gradients by rounding": 1e-12,         # float64 weight gradients, summed in another order
}


def assert_close(actual, expected, tolerance, name=""):
    """Same shape, same kind of number, nothing that is not finite, and close."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(actual).all(), f"{name}: not finite"
    assert np.isfinite(expected).all(), f"{name}: the expected values are not finite"
    error = np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), SMALL)
    limit = TOLERANCE[tolerance]
    assert error <= limit, f"{name}: relative error {error:.1e}, allowed {limit:.0e} ({tolerance})"


def between_backends(kind, dtype):
    """The tolerance for one kind of layer computed by two backends."""
    return "normalised, float32" if "norm" in kind and dtype == "float32" else f"same formulas, {dtype}"


def same_bits(actual, expected):
    """Equal bit for bit: 0.0 is not -0.0, and a NaN equals itself."""
    actual, expected = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    return actual.dtype == expected.dtype and actual.shape == expected.shape and actual.tobytes() == expected.tobytes()


def trained(D, x, target, mask=None, *, how="last", epochs=20, seed=0, **options):
    """An LSTM of 8 units over x (N,T,D), a Pooling and a Linear, after a short training for target (N,1)."""
    net = minilstm.LSTM(D, 8, seed=seed, **options)
    model = minilstm.Sequential(net, minilstm.Pooling(how), minilstm.Linear(net.output_size, 1, seed=seed))
    minilstm.fit(model, x, target, mask, epochs=epochs, optimizer=minilstm.Adam(0.03), seed=seed, progress=False)
    return model


def part_of_constant(model, x, target, mask=None):
    """The mean squared error of a model, as a part of that of the best constant: 1 means that nothing was learned."""
    return np.square(model.forward(x, mask)[0] - target, dtype="float64").mean() / target.var(dtype="float64")


KINDS = {                                   # every recurrent layer: its class, and the options that choose its cell
    "LSTM": (minilstm.LSTM, {}),
    "LSTM, peepholes": (minilstm.LSTM, {"peephole": True}),
    "LSTM, coupled": (minilstm.LSTM, {"coupled": True}),
    "LSTM, layer norm": (minilstm.LSTM, {"layer_norm": True}),
    "LSTM, projection": (minilstm.LSTM, {"proj_size": 2}),
    "GRU": (minilstm.GRU, {}),
    "GRU, reset before": (minilstm.GRU, {"reset_after": False}),
    "GRU, layer norm": (minilstm.GRU, {"layer_norm": True}),
    "RNN, tanh": (minilstm.RNN, {}),
    "RNN, relu": (minilstm.RNN, {"activation": "relu"}),
}

# To compile a cell takes seconds for each dtype.  The ordinary run has all of them in float64, and these in float32;
# the others in float32 are marked long.
USUAL = ["LSTM", "LSTM, projection", "GRU", "RNN, tanh"]


def long_unless(usual, *values):
    """A set of parameters for a test, marked long unless it is a usual one."""
    return pytest.param(*values, marks=[] if usual else pytest.mark.long)


KINDS_AND_DTYPES = [long_unless(dtype == "float64" or kind in USUAL, kind, dtype)
                    for kind in KINDS for dtype in ("float64", "float32")]
DTYPES_AND_KINDS = [("float64", list(KINDS)), ("float32", USUAL),       # for tests that draw a kind
                    long_unless(False, "float32", [kind for kind in KINDS if kind not in USUAL])]


def random_layer(rng, kind, D, H, **options):
    """A recurrent layer with every weight and every bias random and non-zero.  A projection needs more units than it
    gives: H is then 3 at least."""
    layer_class, of_kind = KINDS[kind]
    net = layer_class(D, max(H, 3) if "proj_size" in of_kind else H, **of_kind, **options)
    for name, p in net.params.items():
        net.params[name] = (rng.normal(size=p.shape) * 0.6).astype(p.dtype)
    return net


HOLES = np.array([[True, False, True, True, True, True], [False, True, True, False, True, False],
                  [True, True, False, False, False, True]])             # of a batch of random_net


def random_net(kind, seed=0, B=3, T=6, **options):
    """A generator, a layer on the reference backend and a batch for both of its passes."""
    rng = np.random.default_rng(seed)
    net = random_layer(rng, kind, 3, 4, backend="reference", **{"dtype": "float64"} | options)
    return rng, net, random_batch(rng, net, B, T)


def gradients_of(batch):
    """What ``backward`` is given of it."""
    return {name: d for name, d in batch.items() if name.startswith("d")}


def random_lstm(rng, D, H, **options):
    return random_layer(rng, "LSTM", D, H, **options)


def random_batch(rng, net, B, T):
    """x, the initial states h0 and, for an LSTM, c0, and the gradients dy, dh_n, dc_n: all random, in net's dtype."""
    shapes = {"x": (B, T, net.input_size), "dy": (B, T, net.output_size)}
    for state, width in zip(net.cell.states, net.widths):
        shapes[f"{state}0"] = shapes[f"d{state}_n"] = (net.num_layers, len(net.directions), B, width)
    return {name: rng.normal(size=shape).astype(net.dtype) for name, shape in shapes.items()}


def states_of(batch):
    """The initial states in a batch, as arguments of forward."""
    return {name: batch[name] for name in ("h0", "c0") if name in batch}


def run(net, batch, **options):
    """Forward and backward from zero gradients -> dict of every output, state and gradient."""
    out, cache = net.forward(batch["x"], **states_of(batch), **options)
    net.zero_grads()
    gradients = net.backward(cache, **{name: d for name, d in batch.items() if name.startswith("d")})
    return out._asdict() | gradients._asdict() | {"d " + name: g.copy() for name, g in net.grads.items()}


def masks(rng, B, T):
    """name -> mask (B,T): every kind of pattern that the contract speaks of."""
    lengths = rng.integers(1, T + 1, B)
    right = np.arange(T) < lengths[:, None]
    holes = rng.random((B, T)) < 0.6
    empty_row = right.copy()
    empty_row[B // 2] = False
    return {"none": None, "right": right, "left": right[:, ::-1].copy(), "holes": holes, "empty row": empty_row,
            "all empty": np.zeros((B, T), bool)}
