"""GRU-D: its equations, its gradients, and that what was not measured is never read."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import assert_close, masks, same_bits
from minilstm.sequences import fill_forward, observed_mean, time_since_seen

BACKENDS = ["reference", "cpu"]
RUBBISH = [np.nan, np.inf, -np.inf, 1e300]


def random_net(rng, D, H, dtype="float64", **options):
    """Every parameter random and non-zero, the sums of the fadings of both signs."""
    net = minilstm.GRUD(D, H, mean=rng.normal(size=D).tolist(), dtype=dtype, **options)
    for name, p in net.params.items():
        net.params[name] = (0.6 * rng.normal(size=p.shape)).astype(dtype)
    return net


def random_batch(rng, B, T, D, H, dtype="float64"):
    """x, what of it was measured, rising times, h0."""
    return {"x": rng.normal(size=(B, T, D)).astype(dtype), "observed": rng.random((B, T, D)) < 0.6,
            "times": np.cumsum(rng.uniform(0.2, 2, (B, T)), axis=1), "h0": rng.normal(size=(1, 1, B, H)).astype(dtype)}


def run(net, batch, d, **options):
    """d: gradients of y and h_n -> every output and gradient."""
    out, cache = net.forward(**batch, **options)
    net.zero_grads()
    gradients = net.backward(cache, *d)
    return out._asdict() | gradients._asdict() | {"d " + name: g.copy() for name, g in net.grads.items()}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def by_the_paper(net, x, observed, times, h):
    """One sequence (T,D), a step at a time, after Che et al. 2018, with the paper's z: 1 - ours.  -> h (T,H)"""
    H, D = net.hidden_size, net.input_size
    p = net.params
    W, V = p["weight_ih_l0"][:, :D], p["weight_ih_l0"][:, D:]
    U, b = p["weight_hh_l0"], p["bias_ih_l0"]
    b_hh = p["bias_hh_l0"]
    r_rows, z_rows, n_rows = (slice(k * H, (k + 1) * H) for k in range(3))
    delta, last, found = np.zeros(D), net.mean.copy(), []
    for t in range(len(x)):
        if t:
            delta = times[t] - times[t - 1] + np.where(observed[t - 1], 0, delta)
        m = observed[t].astype(float)
        last = np.where(observed[t], x[t], last)
        gamma_x = np.exp(-np.maximum(0, p["decay_x_weight"] * delta + p["decay_x_bias"]))
        gamma_h = np.exp(-np.maximum(0, p["decay_h_weight"] @ delta + p["decay_h_bias"]))
        x_hat = m * last + (1 - m) * (gamma_x * last + (1 - gamma_x) * net.mean)
        h = gamma_h * h
        r, z = (sigmoid(W[rows] @ x_hat + U[rows] @ h + V[rows] @ m + b[rows] + b_hh[rows])
                for rows in (r_rows, z_rows))
        read = W[n_rows] @ x_hat + V[n_rows] @ m + b[n_rows]
        if net.arguments()["reset_after"]:
            n = np.tanh(read + r * (U[n_rows] @ h + b_hh[n_rows]))
        else:
            n = np.tanh(read + U[n_rows] @ (r * h) + b_hh[n_rows])
        z = 1 - z
        h = (1 - z) * h + z * n
        found.append(h)
    return np.array(found)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("kind", ["none", "left", "holes", "empty row"])
def test_it_follows_the_equations_over_the_real_steps(kind, reset_after, backend):
    rng = np.random.default_rng(0)
    B, T, D, H = 9, 7, 3, 5
    net = random_net(rng, D, H, reset_after=reset_after, backend=backend)
    batch = random_batch(rng, B, T, D, H)
    mask = masks(rng, B, T)[kind]
    out, _ = net.forward(**batch, mask=mask)
    for b in range(B):
        real = np.ones(T, bool) if mask is None else mask[b]
        h0 = batch["h0"][0, 0, b]
        expected = by_the_paper(net, *(batch[name][b, real] for name in ("x", "observed", "times")), h0)
        assert_close(out.y[b, real], expected.reshape(-1, H), "same formulas, float64")
        assert_close(out.h_n[0, 0, b], expected[-1] if real.any() else h0, "same formulas, float64")
        assert not out.y[b, ~real].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("B", [2, 9])
def test_gradients(B, reset_after, backend):
    """Few rows and many: the product with W then is made elsewhere.  W is too large for the loop with few rows."""
    rng = np.random.default_rng(1)
    D, H = (3, 4) if B > 2 else (50, 60)
    net = random_net(rng, D, H, reset_after=reset_after, backend=backend)
    batch = random_batch(rng, B, 6, D, H)
    mask = masks(rng, B, 6)["holes"]
    times = batch.pop("times")
    for options in ({}, {"masked_output": "hold"}):
        report = minilstm.check_gradients(TimesAreGiven(net, times), **batch, mask=mask, max_entries=5, **options)
        assert report.ok, report


class TimesAreGiven(minilstm.Layer):
    """Times are data, and no input to differentiate by."""

    def __init__(self, net, times):
        super().__init__(net.dtype, net.backend)
        self.net, self.times = net, times

    def children(self):
        return {"net": self.net}

    def forward(self, x, **options):
        return self.net.forward(x, times=self.times, **options)

    def backward(self, cache, dy, dh_n):
        return self.net.backward(cache, dy, dh_n)


@pytest.mark.parametrize("reset_after", [False, pytest.param(True, marks=pytest.mark.long)])
def test_backends_agree_in_single_precision(reset_after):
    rng = np.random.default_rng(2)
    batch = random_batch(rng, 9, 12, 3, 20, "float32")
    d = rng.normal(size=(9, 12, 20)).astype("float32"), rng.normal(size=(1, 1, 9, 20)).astype("float32")
    mask = masks(rng, 9, 12)["holes"]
    found = []
    for backend in BACKENDS:
        net = random_net(np.random.default_rng(3), 3, 20, "float32", reset_after=reset_after, backend=backend)
        found.append(run(net, batch, d, mask=mask))
    for name in found[0]:
        assert found[1][name].dtype == np.float32
        assert_close(found[1][name], found[0][name], "same formulas, float32", name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset_after", [False, True])
def test_with_everything_measured_and_nothing_fading_it_is_a_gru_that_reads_ones(reset_after, backend):
    rng = np.random.default_rng(4)
    net = random_net(rng, 3, 5, reset_after=reset_after, backend=backend)
    net.params["decay_h_bias"] = np.full(5, -100.0)
    gru = minilstm.GRU(6, 5, reset_after=reset_after, dtype="float64", backend=backend)
    gru.load_state_dict({name: net.params[name] for name in gru.params})
    x = rng.normal(size=(4, 6, 3))
    found, _ = net.forward(x)
    expected, _ = gru.forward(np.concatenate([x, np.ones_like(x)], axis=2))
    assert_close(found.y, expected.y, "same formulas, float64")


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(B=st.integers(1, 9), T=st.integers(1, 7), D=st.integers(1, 3), H=st.integers(1, 6), seed=st.integers(0, 2**32),
       dtype=st.sampled_from(["float32", "float64"]), data=st.data())
def test_what_was_not_measured_and_padding_are_never_read(backend, B, T, D, H, seed, dtype, data):
    rng = np.random.default_rng(seed)
    net = random_net(rng, D, H, dtype, backend=backend)
    batch = random_batch(rng, B, T, D, H, dtype)
    d = [rng.normal(size=shape).astype(dtype) for shape in ((B, T, H), (1, 1, B, H))]
    mask = data.draw(st.sampled_from(list(masks(rng, B, T).values())[1:]))
    expected = run(net, batch, d, mask=mask)
    assert not expected["dx"][~batch["observed"] | ~mask[:, :, None]].any()
    rubbish = data.draw(st.sampled_from(RUBBISH))
    with np.errstate(over="ignore"):
        dirty = np.where(batch["observed"] & mask[:, :, None], batch["x"], rubbish).astype(dtype)
    times = np.where(mask, batch["times"], np.nan)
    found = run(net, batch | {"x": dirty, "times": times}, [np.where(mask[:, :, None], d[0], np.nan), d[1]], mask=mask)
    assert all(same_bits(found[name], expected[name]) for name in expected)
    if np.isnan(rubbish):
        found = run(net, batch | {"x": dirty, "observed": None}, d, mask=mask)
        assert all(same_bits(found[name], expected[name]) for name in expected), "NaN says that nothing was measured"

    more = data.draw(st.integers(1, 4))
    side = data.draw(st.sampled_from([(more, 0), (0, more)]))
    longer = {name: np.pad(a, ((0, 0), side) + ((0, 0),) * (a.ndim - 2)) for name, a in batch.items() if name != "h0"}
    found = run(net, longer | {"h0": batch["h0"]}, [np.pad(d[0], ((0, 0), side, (0, 0))), d[1]],
                mask=np.pad(mask, ((0, 0), side)))
    kept = slice(side[0], side[0] + T)
    if backend == "cpu":
        assert all(same_bits(found[name], expected[name]) for name in ("h_n", "dh0"))
        assert all(same_bits(found[name][:, kept], expected[name]) for name in ("y", "dx"))
        row = data.draw(st.integers(0, B - 1))
        one = {name: a[row:row + 1] for name, a in batch.items()} | {"h0": batch["h0"][:, :, row:row + 1]}
        alone = run(net, one, [d[0][row:row + 1], d[1][:, :, row:row + 1]], mask=mask[row:row + 1])
        assert all(same_bits(alone[name][0], expected[name][row]) for name in ("y", "dx")), "rows never meet"


def test_a_measured_value_that_is_not_finite_spoils_its_own_row_only():
    rng = np.random.default_rng(5)
    net = random_net(rng, 2, 3)
    batch = random_batch(rng, 4, 5, 2, 3)
    batch["observed"][1, 2, 0] = True
    clean, _ = net.forward(**batch)
    batch["x"][1, 2, 0] = np.inf
    out, _ = net.forward(**batch)
    assert not np.isfinite(out.y[1, 2:]).any() and same_bits(out.y[[0, 2, 3]], clean.y[[0, 2, 3]])
    batch["x"][1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="x: expected a number wherever observed is True, got NaN in row 1, step 2"):
        net.forward(**batch)


def test_without_a_cache_the_bits_are_the_same():
    rng = np.random.default_rng(6)
    net = random_net(rng, 2, 3)
    batch = random_batch(rng, 4, 5, 2, 3)
    kept, _ = net.forward(**batch)
    out, cache = net.forward(**batch, cache=False)
    assert cache is None and same_bits(out.y, kept.y) and same_bits(out.h_n, kept.h_n)


def test_it_learns_in_a_model_and_comes_back_from_a_file(tmp_path):
    """To say the present value of a series that fades to its mean, from gappy measurements of it."""
    rng = np.random.default_rng(7)
    s = np.zeros((64, 30, 1))
    for t in range(1, 30):
        s[:, t] = 0.9 * s[:, t - 1] + rng.normal(size=(64, 1))
    s += 5
    observed = rng.random(s.shape) < 0.5
    x = np.where(observed, s, np.nan).astype("float32")
    mean = observed_mean(x, observed)
    model = minilstm.Sequential(minilstm.GRUD(1, 16, mean=mean), minilstm.Linear(16, 1))
    target = s.astype("float32")
    losses = minilstm.fit(model, x, target, epochs=60, optimizer=minilstm.Adam(0.02), progress=False)
    held = fill_forward(x, observed, start=mean)
    best = np.where(observed, held, 5 + 0.9**time_since_seen(observed) * (held - 5))        # with the true numbers
    error, least = (np.square(guess - target).mean() for guess in (held, best))
    assert losses[-1] < 1.05 * least < 0.95 * error < losses[0]
    minilstm.save(tmp_path / "model.safetensors", model)
    again = minilstm.load(tmp_path / "model.safetensors")
    assert same_bits(again.forward(x)[0], model.forward(x)[0])
    assert again.layers[0].arguments() == model.layers[0].arguments()


@pytest.mark.parametrize("change, error, text", [
    ({"x": np.zeros((2, 3, 4))}, ValueError, r"x: expected float64 \(B, T, D=2\), got float64 \(2, 3, 4\)"),
    ({"observed": np.ones((2, 3, 2))}, TypeError, r"observed: expected a bool array \(2, 3, 2\).*got float64"),
    ({"observed": np.ones((2, 3), bool)}, ValueError, r"observed: expected shape \(2, 3, 2\), got \(2, 3\); .* mask="),
    ({"times": np.zeros((2, 4))}, ValueError, "times: expected shape"),
    ({"times": np.array([[0., 1, 2], [0, 2, 1]])}, ValueError, "times: expected finite numbers that never fall"),
    ({"h0": np.zeros((2, 3))}, ValueError, "h0: expected"),
    ({"masked_output": "last"}, ValueError, "masked_output: expected one of 'zero', 'hold'"),
])
def test_what_does_not_fit_is_named(change, error, text):
    net = minilstm.GRUD(2, 3, dtype="float64")
    with pytest.raises(error, match=text):
        net.forward(**({"x": np.zeros((2, 3, 2))} | change))


def test_arguments_and_caches_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"mean: expected \(D=2,\) finite numbers"):
        minilstm.GRUD(2, 3, mean=[0.0, np.nan])
    with pytest.raises(TypeError, match=r"mean: expected \(D=2,\) numbers"):
        minilstm.GRUD(2, 3, mean="ab")
    net, other = minilstm.GRUD(2, 3), minilstm.GRUD(2, 4)
    out, cache = other.forward(np.zeros((1, 2, 2), "float32"))
    with pytest.raises(ValueError, match="cache: expected one of this layer"):
        net.backward(cache, out.y)
    with pytest.raises(ValueError, match="dy, dh_n: expected at least one gradient"):
        other.backward(cache)
