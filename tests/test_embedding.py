"""Categories as vectors: looked up, learnt, and never read where masked."""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits

LENGTHS = [4, 0, 2]


def random_embedding(rng, V=5, F=3, **options):
    layer = minilstm.Embedding(V, F, **options)
    layer.params["weight"] = rng.normal(size=(V, F)).astype(layer.dtype)
    return layer


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("integers", ["int64", "uint8", "int32"])
def test_each_category_is_its_row_of_weight_and_masked_steps_are_never_read(integers, backend):
    rng = np.random.default_rng(0)
    layer = random_embedding(rng, backend=backend)
    x = rng.integers(0, 5, (3, 4)).astype(integers)
    mask = np.arange(4) < np.array(LENGTHS)[:, None]
    assert same_bits(layer.forward(x)[0], layer.params["weight"][x])
    x[~mask] = 200 if integers == "uint8" else -7
    for options in ({"mask": mask}, {"lengths": LENGTHS}):
        y, cache = layer.forward(x, **options)
        assert same_bits(y[mask], layer.params["weight"][x[mask]]) and not y[~mask].any()
    dy = np.full(y.shape, np.nan, "float32")
    dy[mask] = rng.normal(size=(6, 3))
    assert layer.backward(cache, dy) is None
    expected = np.zeros((5, 3), "float32")
    for category, d in zip(x[mask], dy[mask]):
        expected[category] += d
    assert_close(layer.grads["weight"], expected, "same formulas, float32")
    assert layer.forward(x, mask, cache=False)[1] is None


@pytest.mark.parametrize("mask", [None, np.array([[True, False, True], [False] * 3, [True] * 3])])
def test_gradients_alone_and_in_a_model(mask):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 5, (3, 3))
    model = minilstm.Sequential(random_embedding(rng), minilstm.GRU(3, 4), minilstm.Pooling("mean"))
    for net in (random_embedding(rng), model):
        report = minilstm.check_gradients(net, x=x, mask=mask)
        assert report.ok, report
        assert len(report.rows) == len(net.state_dict()), "every parameter, and no gradient of x"


def test_a_model_learns_from_words_and_comes_back_from_a_file(tmp_path):
    """How often does category 2 come?"""
    rng = np.random.default_rng(2)
    x = rng.integers(0, 4, (128, 8))
    mask = np.arange(8) < rng.integers(1, 9, 128)[:, None]
    target = ((x == 2) & mask).sum(axis=1, keepdims=True).astype("float32")
    x[~mask] = 99
    model = minilstm.Sequential(minilstm.Embedding(4, 3), minilstm.LSTM(3, 12), minilstm.Pooling("last"),
                                minilstm.Linear(12, 1))
    losses = minilstm.fit(model, x, target, mask, epochs=60, optimizer=minilstm.Adam(0.02), progress=False)
    assert losses[-1] < 0.05 * target.var()
    minilstm.save(tmp_path / "model.safetensors", model)
    again = minilstm.load(tmp_path / "model.safetensors")
    assert same_bits(again.forward(x, mask)[0], model.forward(x, mask)[0])


@pytest.mark.peers
def test_it_is_pytorchs():
    torch = pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    rng = np.random.default_rng(3)
    layer, x, dy = random_embedding(rng), rng.integers(0, 5, (2, 6)), rng.normal(size=(2, 6, 3)).astype("float32")
    theirs = torch.nn.Embedding(5, 3)
    theirs.load_state_dict({"weight": torch.tensor(layer.params["weight"])})
    y, cache = layer.forward(x)
    found = theirs(torch.tensor(x))
    assert same_bits(found.detach().numpy(), y)
    layer.backward(cache, dy)
    found.backward(torch.tensor(dy))
    assert_close(layer.grads["weight"], theirs.weight.grad.numpy(), "same formulas, float32")


@pytest.mark.parametrize("x, error, text", [
    (np.zeros((2, 3)), TypeError, r"x: expected integers \(B,T\) from 0 to 4, got float64 \(2, 3\)"),
    ([[1, 2]], TypeError, "x: expected integers .* got list"),
    (np.zeros(3, int), ValueError, r"x: expected integers \(B,T\), got int64 \(3,\)"),
    (np.zeros((2, 3, 2), int), ValueError, "2 features of categories need an Embedding each"),
    (np.array([[0, 4, 5]]), ValueError, "x: expected categories from 0 to 4, got 5 in row 0, step 2"),
    (np.array([[0], [-1]]), ValueError, "x: expected categories from 0 to 4, got -1 in row 1, step 0"),
])
def test_what_is_no_category_is_named(x, error, text):
    with pytest.raises(error, match=text):
        minilstm.Embedding(5, 2).forward(x)


def test_other_mistakes_are_named():
    layer = minilstm.Embedding(5, 2)
    with pytest.raises(ValueError, match="layers: expected Embedding, which reads categories, in place 0 only"):
        minilstm.Sequential(minilstm.Linear(2, 2), layer)
    with pytest.raises(ValueError, match="layers: expected input_size=2 in place 1"):
        minilstm.Sequential(layer, minilstm.LSTM(3, 2))
    with pytest.raises(ValueError, match=r"x: expected 2 axes, \(N,T\)"):
        minilstm.fit(minilstm.Sequential(layer), np.zeros((4, 3, 1), int), np.zeros((4, 3, 2), "float32"), epochs=1)
    with pytest.raises(TypeError, match="cache: expected what forward returned"):
        layer.backward(None, np.zeros((1, 1, 2), "float32"))
