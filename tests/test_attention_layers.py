"""Attention with weights of its own, and as a pooling: right, differentiated, masked, in a model, in a file; PyTorch's
where that means the same; and two examples of popular answers, as they are and put right."""
import os
import warnings

import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, same_bits
from minilstm.attention import OneKeyWarning, attend, attend_additive, attention_weights
from minilstm.layers import Attention, AttentionPooling
from minilstm.layers.layer import Layer, first

BACKENDS = ["reference", "cpu"]
B, TQ, TK, D, E, A, F = 4, 6, 5, 2, 3, 6, 9
SCORES = ["scaled", "dot", "additive"]
pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning"), pytest.mark.filterwarnings("ignore:__array__")]


def randomised(rng, layer):
    """The layer, with every weight and bias random."""
    for _, owner in layer.walk():
        for name, p in owner.params.items():
            owner.params[name] = rng.normal(size=p.shape).astype(p.dtype)
    return layer


def layers(rng, **options):
    """name -> a layer, and arguments of forward: over a memory, and over itself."""
    for score in SCORES:
        for heads in (1, 3):
            for causal in (False, True):
                name = f"{score}, {heads} heads{', causal' * causal}"
                x, memory = rng.normal(size=(B, TQ, D)), rng.normal(size=(B, TQ if causal else TK, E))
                mask, memory_mask = (rng.random(array.shape[:2]) < 0.8 for array in (x, memory))
                memory_mask[1], memory_mask[2, :2], memory_mask[3] = False, [False, True], True
                mask[0], mask[2, 3] = True, False
                yield f"{name}, a memory", randomised(rng, Attention(
                    D, A, memory_size=E, value_size=F, heads=heads, score=score, causal=causal, **options)), {
                        "x": x, "mask": mask, "memory": memory, "memory_mask": memory_mask}
                yield name, randomised(rng, Attention(
                    D, A, output_size=4, heads=heads, score=score, causal=causal, **options)), {"x": x, "mask": mask}
    for heads in (1, 3):
        yield f"pooling, {heads} heads", randomised(rng, AttentionPooling(D, A, heads=heads, **options)), {
            "x": x, "mask": mask & memory_mask[:, :1]}


def cast(inputs, dtype):
    return {name: array if array.dtype == bool else array.astype(dtype) for name, array in inputs.items()}


def run(layer, inputs, dy=None):
    """Forward and backward from zero gradients -> dict of y, the weights and all gradients."""
    out, cache = layer.forward(**inputs, return_weights=True)
    dy = np.cos(np.arange(out.y.size)).reshape(out.y.shape).astype(layer.dtype) if dy is None else dy
    layer.zero_grads()
    gradients = layer.backward(cache, dy)
    gradients = gradients._asdict() if isinstance(gradients, tuple) else {"dx": gradients}
    return out._asdict() | gradients | {f"d {prefix}{name}": g.copy() for prefix, owner in layer.walk()
                                        for name, g in owner.grads.items()}


# ------------------------------------------------------------------------------------------------- values and gradients

@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_projections_around_the_functions_of_attention(backend):
    for name, layer, inputs in layers(np.random.default_rng(), dtype="float64", backend=backend):
        state, x = layer.state_dict(), inputs["x"]
        memory, key_mask = inputs.get("memory", x), inputs.get("memory_mask", inputs["mask"])
        if "pooling" in name:
            q = np.tile(state["query"], (B, 1, 1))
            context, cache = attend_additive(q, x @ state["k_proj.weight"].T, np.tile(x, layer.heads),
                                             state["score_weight"], key_mask=key_mask, heads=layer.heads,
                                             backend=backend)
            expected, weights = context[:, 0], attention_weights(cache)[:, :, 0]
        else:
            q, k, v = (array @ state[f"{p}_proj.weight"].T + state.get(f"{p}_proj.bias", 0)
                       for p, array in zip("qkv", (x, memory, memory)))
            options = {"key_mask": key_mask, "query_mask": inputs["mask"], "causal": layer.causal, "heads": layer.heads,
                       "backend": backend}
            if layer.score == "additive":
                context, cache = attend_additive(q, k, v, state["score_weight"], **options)
            else:
                context, cache = attend(q, k, v, scale={"dot": 1, "scaled": None}[layer.score], **options)
            weights = attention_weights(cache)
            projects = "out_proj.weight" in state
            expected = context @ state["out_proj.weight"].T + state["out_proj.bias"] if projects else context
            expected = np.where(weights.any(axis=(1, 3))[:, :, None], expected, 0)
            assert projects == (layer.heads > 1 or "memory" not in inputs)
        found = run(layer, inputs)
        assert_close(found["y"], expected, "same formulas, float64", name)
        assert_close(found["weights"], weights, "same formulas, float64", name)
        assert same_bits(layer.forward(**inputs, cache=False)[0], found["y"])
        assert layer.forward(**inputs, cache=False)[1] is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    """Of every parameter, x and the memory, under masks of both: by complex step and by a difference."""
    for name, layer, inputs in layers(np.random.default_rng(7), dtype="float64", backend=backend):
        report = minilstm.check_gradients(layer, max_entries=5, methods=("complex step", "projection"), **inputs)
        assert report.ok and all(row.verdict == "ok" for row in report.rows), f"{name}\n{report}"


def test_gradients_in_a_model():
    rng = np.random.default_rng(0)
    model = randomised(rng, minilstm.Sequential(
        minilstm.LSTM(D, 3), Attention(3, 4, heads=2, causal=True), minilstm.Linear(4, 2),
        AttentionPooling(2, 4, heads=2), minilstm.Linear(4, 1)))
    assert model.pools
    report = minilstm.check_gradients(model, x=rng.normal(size=(3, 5, D)), mask=masks(rng, 3, 5)["empty row"])
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(dtype):
    seed = np.random.SeedSequence().entropy
    for (name, one, inputs), (_, other, _) in zip(*(
            layers(np.random.default_rng(seed), dtype=dtype, backend=backend) for backend in BACKENDS)):
        expected, found = run(one, cast(inputs, dtype)), run(other, cast(inputs, dtype))
        for array in expected:
            assert found[array].dtype == dtype
            assert_close(found[array], expected[array], f"same formulas, {dtype}", f"{name}: {array}")


# ------------------------------------------------------------------------------------------------------ what is hidden

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30])
def test_what_stands_at_masked_steps_changes_no_bit(rubbish, backend):
    """Not in x, nor in the memory, nor in the gradient of y: no output, no gradient, also not of a weight."""
    rng = np.random.default_rng()
    for name, layer, inputs in layers(rng, backend=backend):
        clean = cast(inputs, "float32")
        dy = rng.normal(size=first(layer.forward(**clean)[0]).shape).astype("float32")
        expected = run(layer, clean, dy)
        dirty = {key: array.copy() for key, array in clean.items()}
        dirty["x"][~clean["mask"]] = rubbish
        if "memory" in clean:
            dirty["memory"][~clean["memory_mask"]] = rubbish
        unseen = ~expected["weights"].any(axis=(1, 3) if dy.ndim == 3 else (1, 2))
        assert unseen.any() and not expected["y"][unseen].any()
        dy[unseen] = rubbish
        found = run(layer, dirty, dy)
        assert all(same_bits(found[array], expected[array]) for array in expected), name
        assert not expected["dx"][~clean["mask"]].any()
        assert "memory" not in clean or not expected["dmemory"][~clean["memory_mask"]].any()


def test_a_step_that_sees_nothing_reaches_nothing():
    """A memory without a real step: y is 0, not the output projection's bias; and a NaN in such an x is not seen."""
    rng = np.random.default_rng()
    layer = randomised(rng, Attention(D, A, memory_size=E, heads=2))
    x, memory = rng.normal(size=(B, TQ, D)).astype("float32"), rng.normal(size=(B, TK, E)).astype("float32")
    memory_mask = np.ones((B, TK), bool)
    memory_mask[1] = False
    x[1] = np.nan
    found = run(layer, {"x": x, "memory": memory, "memory_mask": memory_mask})
    assert not found["y"][1].any() and not found["dx"][1].any() and not found["dmemory"][1].any()
    others = np.arange(B) != 1
    dy = np.cos(np.arange(found["y"].size)).reshape(found["y"].shape).astype("float32")[others]
    alone = run(layer, {"x": x[others], "memory": memory[others]}, dy)
    for name in alone:
        assert_close(found[name] if name[:2] == "d " else found[name][others], alone[name], "same formulas, float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_amount_and_place_of_padding_change_nothing(backend):
    rng = np.random.default_rng()
    for name, layer, inputs in layers(rng, dtype="float64", backend=backend):
        dy = rng.normal(size=first(layer.forward(**inputs)[0]).shape)
        expected = run(layer, inputs, dy)
        slots, longer = np.sort(rng.permutation(20)[:TQ]), {}
        memory_slots = slots if inputs.get("memory", inputs["x"]).shape[1] == TQ else np.sort(rng.permutation(20)[:TK])
        for key, array in (inputs | {"dy": dy}).items():
            longer[key] = array
            if array.ndim == 3 or array.dtype == bool:
                longer[key] = np.full((B, 20, *array.shape[2:]), False if array.dtype == bool else np.nan)
                longer[key][:, memory_slots if "memory" in key else slots] = array
        found = run(layer, longer, longer.pop("dy"))
        for array in expected:
            if array in ("y", "dx") and found[array].ndim == 3:
                found[array] = found[array][:, slots]
            elif array == "dmemory":
                found[array] = found[array][:, memory_slots]
            elif array == "weights":
                found[array] = found[array][..., memory_slots]
                found[array] = found[array][:, :, slots] if found[array].ndim == 4 else found[array]
            assert_close(found[array], expected[array], "same formulas, float64", f"{name}: {array}")


def test_a_cache_stays_true_whatever_becomes_of_the_arrays():
    for name, layer, inputs in layers(np.random.default_rng()):
        inputs = {key: array.copy() for key, array in cast(inputs, "float32").items()}
        expected = run(layer, inputs)
        y, cache = layer.forward(**inputs)
        dy = np.cos(np.arange(y.size)).reshape(y.shape).astype("float32")
        for array in (y, *inputs.values()):
            array[...] = 0
        assert same_bits(first(layer.backward(cache, dy)), expected["dx"]), name


def test_lengths_are_a_mask():
    rng = np.random.default_rng()
    x = rng.normal(size=(B, TQ, D)).astype("float32")
    mask = np.arange(TQ) < np.array([6, 0, 2, 5])[:, None]
    for layer in (Attention(D, A), AttentionPooling(D, A)):
        assert same_bits(layer.forward(x, lengths=[6, 0, 2, 5])[0], layer.forward(x, mask)[0])


def test_pooling_sees_steps_and_not_their_order():
    rng = np.random.default_rng()
    layer, x, order = randomised(rng, AttentionPooling(D, A, heads=2)), rng.normal(size=(B, TQ, D)), rng.permutation(TQ)
    x = x.astype("float32")
    assert_close(layer.forward(x[:, order])[0], layer.forward(x)[0], "same formulas, float32")
    mean = AttentionPooling(D, A, seed=None).forward(x)[0]
    assert_close(mean, minilstm.Pooling("mean").forward(x)[0], "same formulas, float32", "all equal")


def test_one_key_is_pointed_out():
    rng = np.random.default_rng()
    for layer, options in ((Attention(D, A), {}), (AttentionPooling(D, A), {}),
                           (Attention(D, A, memory_size=E), {"memory": np.ones((B, 1, E), "float32")})):
        T = TQ if options else 1
        with pytest.warns(OneKeyWarning, match="its weight is always 1") as caught:
            layer.forward(rng.normal(size=(B, T, D)).astype("float32"), **options)
        assert caught[0].filename == __file__


# -------------------------------------------------------------------------------------------------- models and files

def test_arguments_and_weights_come_back_from_a_file(tmp_path):
    rng = np.random.default_rng()
    for name, layer, inputs in layers(rng):
        minilstm.save(tmp_path / "layer", layer)
        again = minilstm.load(tmp_path / "layer")
        assert again.arguments() == layer.arguments() and again.state_dict().keys() == layer.state_dict().keys()
        inputs = cast(inputs, "float32")
        assert same_bits(first(again.forward(**inputs)[0]), first(layer.forward(**inputs)[0])), name
    wide = Attention(40, 2, value_size=1, output_size=40, bias=False)
    minilstm.save(tmp_path / "layer", minilstm.Sequential(wide, AttentionPooling(40, 1)))
    again = minilstm.load(tmp_path / "layer").layers[0]
    assert not again.bias and not any("bias" in name for name in again.state_dict())


@pytest.mark.parametrize("size", ["input_size", "attention_size", "memory_size", "value_size", "output_size"])
def test_a_damaged_file_cannot_ask_for_all_memory(tmp_path, monkeypatch, size):
    for layer in (Attention(3, 2, output_size=2), Attention(3, 2, heads=2), AttentionPooling(3, 2)):
        if size in layer.arguments():
            monkeypatch.setattr(layer, "arguments", lambda a=layer.arguments(): a | {size: 10**8})
            minilstm.save(tmp_path / "layer", layer)
            with pytest.raises(minilstm.FormatError, match="100000000.*more than its tensors hold"):
                minilstm.load(tmp_path / "layer")


def test_initial_weights():
    """Glorot's; other projections are other numbers; the seed decides, None is zeros."""
    layer = Attention(300, 200, score="additive", seed=3)
    limits = {"q_proj.weight": 500, "k_proj.weight": 500, "v_proj.weight": 500, "score_weight": 201}
    for name, p in layer.state_dict().items():
        if name in limits:
            assert 0.95 < np.abs(p).max() / np.sqrt(6 / limits[name]) <= 1
        else:
            assert not p.any()
    state = layer.state_dict()
    assert not same_bits(state["q_proj.weight"], state["k_proj.weight"])
    again, other = (Attention(300, 200, score="additive", seed=seed).state_dict() for seed in (3, 4))
    assert all(same_bits(p, state[name]) for name, p in again.items())
    assert not same_bits(other["score_weight"], state["score_weight"])
    for empty in (Attention(3, 4, score="additive", heads=2, seed=None), AttentionPooling(3, 4, seed=None)):
        assert not any(p.any() for p in empty.state_dict().values())


# ------------------------------------------------------------------------------------------------------------- PyTorch

def torch_or_skip():
    return pytest.importorskip("torch", reason="live comparison: PyTorch is not installed "
                                               "(pip install -e '.[peers]')")


def multihead(torch, layer, memory_size):
    """nn.MultiheadAttention with the same weights, and a bias of k, which changes nothing."""
    size, state = layer.input_size, {name: torch.tensor(p) for name, p in layer.state_dict().items()}
    theirs = torch.nn.MultiheadAttention(size, layer.heads, kdim=memory_size, vdim=memory_size, batch_first=True,
                                         dtype=torch.float64)
    weights = {f"{p}_proj_weight": state[f"{p}_proj.weight"] for p in "qkv"}
    if memory_size == size:
        weights = {"in_proj_weight": torch.cat(list(weights.values()))}
    theirs.load_state_dict(weights | {
        "in_proj_bias": torch.cat([state["q_proj.bias"], torch.randn(size, dtype=torch.float64), state["v_proj.bias"]]),
        "out_proj.weight": state["out_proj.weight"], "out_proj.bias": state["out_proj.bias"]})
    return theirs, weights


@pytest.mark.peers
@pytest.mark.parametrize("over", ["itself", "itself, causal", "a memory"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_pytorchs_multihead_attention(backend, over):
    """Outputs, weights and gradients, under a mask of keys: PyTorch's says True where a key is padding."""
    torch = torch_or_skip()
    rng = np.random.default_rng()
    size = 6
    memory_size = 5 if over == "a memory" else size
    layer = randomised(rng, Attention(size, size, memory_size=memory_size, heads=3, causal="causal" in over,
                                      dtype="float64", backend=backend))
    theirs, names = multihead(torch, layer, memory_size)
    x = rng.normal(size=(B, TQ, size))
    memory = rng.normal(size=(B, TK, memory_size)) if over == "a memory" else x
    mask = masks(rng, *memory.shape[:2])["right"]
    given = {"memory": memory, "memory_mask": mask} if over == "a memory" else {"mask": mask}
    found = run(layer, {"x": x} | given)
    queries = np.ones((B, TQ), bool) if over == "a memory" else mask
    dy = np.cos(np.arange(found["y"].size)).reshape(found["y"].shape) * queries[:, :, None]
    tx, tm = torch.tensor(x, requires_grad=True), torch.tensor(memory, requires_grad=True)
    later = torch.ones(TQ, TQ).triu(1).bool() if "causal" in over else None
    y, weights = theirs(tx, tm, tm, key_padding_mask=torch.tensor(~mask), attn_mask=later, average_attn_weights=False)
    y.backward(torch.tensor(dy))
    assert_close(found["y"][queries], y.detach().numpy()[queries], "pytorch, float64")
    assert_close(found["weights"], weights.detach().numpy() * queries[:, None, :, None], "pytorch, float64")
    dx = tx.grad if over == "a memory" else tx.grad + tm.grad
    assert_close(found["dx"], dx.numpy(), "pytorch, float64")
    if over == "a memory":
        assert_close(found["dmemory"], tm.grad.numpy(), "pytorch, float64")
    for name in names:
        ours = np.concatenate([found[f"d {p}_proj.weight"] for p in ("qkv" if name[0] == "i" else name[0])])
        assert_close(ours, getattr(theirs, name).grad.numpy(), "pytorch, float64")
    b_q, b_k, b_v = theirs.in_proj_bias.grad.chunk(3)
    assert_close(found["d q_proj.bias"], b_q.numpy(), "pytorch, float64")
    assert_close(found["d v_proj.bias"], b_v.numpy(), "pytorch, float64")
    assert b_k.abs().max() < 1e-12, "a bias of k has no gradient"


@pytest.mark.peers
def test_in_a_row_without_a_key_pytorch_gives_nan_or_a_bias():
    """NaN if it is to return weights, and then NaN gradients of all parameters; its bias if not.  Here y is 0."""
    torch = torch_or_skip()
    rng = np.random.default_rng()
    layer = randomised(rng, Attention(6, 6, heads=2, dtype="float64"))
    theirs, _ = multihead(torch, layer, 6)
    x = torch.tensor(rng.normal(size=(2, 3, 6)))
    padding = torch.tensor([[False] * 3, [True] * 3])
    y, _ = theirs(x, x, x, key_padding_mask=padding)
    y[0].sum().backward()
    assert y[1].isnan().all() and theirs.in_proj_weight.grad.isnan().all(), "though only the first row is in the loss"
    y, _ = theirs(x, x, x, key_padding_mask=padding, need_weights=False)
    assert (y[1] - theirs.out_proj.bias).abs().max() < 1e-12
    assert not layer.forward(x.numpy(), lengths=[3, 0])[0][1].any()


# ------------------------------------------------------------------------------------------------- two popular examples

class Recall(Layer):
    """An LSTM over x; attention over its outputs, the condition being the query; a Linear.  beside: the Linear also
    gets the condition itself."""
    takes_mask = True
    pools = True

    def __init__(self, x_size, condition_size, hidden, beside):
        super().__init__("float32", "cpu")
        self.hidden, self.beside = hidden, beside
        self.layers = {"lstm": minilstm.LSTM(x_size, hidden),
                       "attention": Attention(condition_size, hidden, memory_size=hidden, score="additive"),
                       "head": minilstm.Linear(hidden + beside * condition_size, 1)}

    def children(self):
        return self.layers

    def forward(self, x, condition, mask=None):
        out, lstm = self.layers["lstm"].forward(x, mask)
        context, attended = self.layers["attention"].forward(condition[:, None], memory=out.y, memory_mask=mask)
        y, head = self.layers["head"].forward(np.concatenate([context[:, 0], condition][:1 + self.beside], axis=1))
        return y, (lstm, attended, head)

    def backward(self, cache, dy):
        lstm, attended, head = cache
        d_context = self.layers["head"].backward(head, dy)[:, :self.hidden]
        _, d_states = self.layers["attention"].backward(attended, np.ascontiguousarray(d_context[:, None]))
        return self.layers["lstm"].backward(lstm, d_states)[0]


def items(rng, N, T=6, keys=3, offset=0.0):
    """Sequences of items, [key as one-hot, a number]; the condition names a key that occurs; the target is the number
    that stands beside it, plus an offset times the key's index.  -> x (N,T,keys+1), condition (N,keys), target, mask"""
    mask = np.arange(T) < rng.integers(keys, T + 1, N)[:, None]
    key = np.full((N, T), keys)
    for row in range(N):
        key[row, rng.permutation(mask[row].sum())[:keys]] = np.arange(keys)
    number = rng.uniform(-1, 1, (N, T))
    x = np.concatenate([np.eye(keys + 1)[key][:, :, :keys], number[:, :, None]], axis=2)
    x[~mask] = 0
    asked = rng.integers(0, keys, N)
    target = number[key == asked[:, None]] + offset * asked
    return x.astype("float32"), np.eye(keys)[asked].astype("float32"), target[:, None].astype("float32"), mask


def trained(model, x, condition, target, mask, epochs=40):
    minilstm.fit(model, {"x": x, "condition": condition}, target, mask, epochs=epochs, batch_size=64, progress=False,
                 optimizer=minilstm.Adam(0.01))
    return model


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    torch_or_skip()
    return pytest.importorskip("keras", reason="comparison with Keras: it is not installed (pip install -e '.[peers]')")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")      # Keras points it out too
def test_attending_to_one_condition_vector_looks_at_nothing(keras):
    """"How does an LSTM perform with conditional input?", example 3: all queries are LSTM states, the only key is the
    condition.  Every weight is 1, the output is a function of the condition alone, and the LSTM has no gradient."""
    import torch
    rng = np.random.default_rng()
    lstm, weigh, dense = keras.layers.LSTM(8, return_sequences=True), keras.layers.Attention(), keras.layers.Dense(2)
    x, condition = (rng.normal(size=shape).astype("float32") for shape in ((5, 7, 3), (5, 8)))
    key = torch.tensor(condition)[:, None]
    context, weights = weigh([lstm(torch.tensor(x)), key], return_attention_scores=True)
    y = dense(context)
    assert (weights == 1).all() and tuple(y.shape) == (5, 7, 2)
    assert (y - y[:, :1]).abs().max() == 0, "the same at every step"
    other = dense(weigh([lstm(torch.tensor(x + 1)), key]))
    assert (other - y).abs().max() == 0, "whatever the sequence"
    (y ** 2).sum().backward()
    assert all(variable.value.grad is None or not variable.value.grad.any() for variable in lstm.weights)
    with pytest.raises(Exception, match="[Ee]xpected size"):
        weigh([lstm(torch.tensor(x)), key[:, :, :5]])
    states, _ = minilstm.LSTM(3, 8).forward(x)
    with pytest.warns(OneKeyWarning):
        attend(states.y, condition[:, None], condition[:, None])


def test_attending_to_the_sequence_with_the_condition_as_query_learns_what_it_names():
    """The same put right, on a task that needs both: the condition names the item to recall.  Whoever sees the
    condition alone, as the example does, can do no better than the variance of the target."""
    rng = np.random.default_rng(0)
    model = trained(Recall(4, 3, 16, beside=False), *items(rng, 512))
    x, condition, target, mask = items(rng, 256)
    y, _ = model.forward(x, condition, mask)
    assert np.mean((y - target) ** 2) < 0.05 * target.var()
    for name, array in (("x", x), ("condition", condition)):
        moved, _ = model.forward(**{"x": x, "condition": condition} | {name: array[::-1].copy()}, mask=mask)
        assert np.abs(moved - y).max() > 0.5, f"{name} has an effect"
    assert all(np.abs(g).max() > 0 for _, owner in model.walk() for g in owner.grads.values()), "every weight learns"


def test_scores_over_all_steps_put_weight_on_padding_and_weigh_no_covariate():
    """"How can I incorporate covariates into a PyTorch LSTM model?", example 2: v . tanh(W_h h_t + W_c c), a softmax
    over all steps, and no mask.  Over 20 random nets: of rows of 3, 2 and 5 steps, padded to 7, more than a fifth of
    the weight stands on padding, padded to 30 more than two thirds, and the context moves.  There is a weight for a
    step and none for a covariate: with one step all covariates do nothing.  With the mask padding has weight 0, and
    more of it changes nothing."""
    H, C, lengths = 16, 2, np.array([3, 2, 5])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net = minilstm.LSTM(3, H, dtype="float64", seed=seed)
        W_h, W_c, v = rng.uniform(-0.25, 0.25, (H, H)), rng.uniform(-0.25, 0.25, (H, C)), rng.random(H)

        def example(x, c, mask=None):
            h = net.forward(x, mask)[0].y
            context, cache = attend_additive((c @ W_c.T)[:, None], h @ W_h.T, h, v, key_mask=mask)
            return context[:, 0], attention_weights(cache)[:, 0, 0]

        c, found = rng.normal(size=(3, C)), {}
        x = np.where(np.arange(7)[:, None] < lengths[:, None, None], rng.normal(size=(3, 7, 3)), 0)
        for T, least in ((7, 0.2), (30, 0.66)):
            longer, mask = np.pad(x, ((0, 0), (0, T - 7), (0, 0))), np.arange(T) < lengths[:, None]
            blind, weights = example(longer, c)
            assert weights.shape == (3, T) and np.where(mask, 0, weights).sum(axis=1).min() > least
            right, weights = example(longer, c, mask)
            assert not weights[~mask].any()
            found[T] = blind, right
        assert np.abs(found[30][0] - found[7][0]).max() > 0.01
        assert np.abs(found[7][0] - found[7][1]).max() > 0.01
        assert_close(found[30][1], found[7][1], "same formulas, float64")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OneKeyWarning)
            one, raised = (example(x[:, :1].copy(), covariates)[0] for covariates in (c, c + 10))
        assert same_bits(one, raised)


def as_written(torch, D, C, H):
    """"How can I incorporate covariates into a PyTorch LSTM model?", example 2, in its own words but for the dropout
    between layers, of which it has one."""
    class LSTMWithAttention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(D, H, batch_first=True)
            self.attention = torch.nn.Linear(H + C, H)
            self.v = torch.nn.Parameter(torch.rand(H))
            self.fc = torch.nn.Linear(H, 1)

        def forward(self, seq, covariates):
            lstm_out, _ = self.lstm(seq)
            covariates_expanded = covariates.unsqueeze(1).repeat(1, lstm_out.shape[1], 1)
            scores = torch.matmul(torch.tanh(self.attention(torch.cat((lstm_out, covariates_expanded), dim=2))), self.v)
            self.weights = torch.softmax(scores, dim=1)
            return self.fc(torch.bmm(self.weights.unsqueeze(1), lstm_out).squeeze(1))

    torch.manual_seed(0)
    return LSTMWithAttention().double()


def ours_with_its_weights(theirs, C, H):
    """Its scores v . tanh(W [h, c] + b) are additive attention: k = W_h h, q = W_c c + b, and the values are h."""
    state = {name: p.detach().numpy() for name, p in theirs.state_dict().items()}
    lstm, attention, head = (minilstm.LSTM(3, H, dtype="float64"), Attention(C, H, memory_size=H, score="additive",
                             dtype="float64"), minilstm.Linear(H, 1, dtype="float64"))
    lstm.load_state_dict({name[5:]: p for name, p in state.items() if name.startswith("lstm.")})
    attention.load_state_dict({
        "k_proj.weight": state["attention.weight"][:, :H], "q_proj.weight": state["attention.weight"][:, H:],
        "q_proj.bias": state["attention.bias"], "score_weight": state["v"], "v_proj.weight": np.eye(H),
        "v_proj.bias": np.zeros(H)})
    head.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})

    def forward(x, condition, mask=None):
        out, _ = lstm.forward(x, mask)
        (context, weights), _ = attention.forward(condition[:, None], memory=out.y, memory_mask=mask,
                                                  return_weights=True)
        return head.forward(context[:, 0])[0], weights[:, 0, 0]

    return forward


@pytest.mark.peers
def test_attention_without_a_mask_looks_at_padding_and_over_one_step_it_hides_the_covariate():
    """The example has no mask: in the shorter rows more than a quarter of the weight stands on padding to 7 steps, and
    more than three quarters on padding to 30.  It weighs steps, not covariates: at T = 1 the covariate has no effect.
    With the same weights and a mask each row is as if it were alone."""
    torch = torch_or_skip()
    rng = np.random.default_rng(1)
    C, H = 2, 16
    theirs = as_written(torch, 3, C, H)
    ours = ours_with_its_weights(theirs, C, H)
    lengths, rows = [3, 2, 5, 7], np.arange(4)
    x, condition = rng.normal(size=(4, 7, 3)), rng.normal(size=(4, C))
    full = theirs(torch.tensor(x), torch.tensor(condition)).detach().numpy()
    assert_close(ours(x, condition)[0], full, "pytorch, float64")
    one, moved = (theirs(torch.tensor(x[:, :1]), torch.tensor(condition + c)) for c in (0, 10))
    assert (one - moved).abs().max() == 0
    mask = np.arange(7) < np.array(lengths)[:, None]
    x[~mask] = 0
    padded, unmasked = np.pad(x, ((0, 0), (0, 23), (0, 0))), []
    for array in (x, padded):
        y = theirs(torch.tensor(array), torch.tensor(condition)).detach().numpy()
        weights = theirs.weights.detach().numpy()
        unmasked.append((y, np.array([weights[row, n:].sum() for row, n in zip(rows, lengths)])))
    (y7, on_padding7), (y30, on_padding30) = unmasked
    assert on_padding7[:3].min() > 0.25 and on_padding7[1] > 0.7 and on_padding30.min() > 0.75
    assert np.abs(y7 - y30).max() > 0.005
    y, weights = ours(x, condition, mask)
    y_padded, weights_padded = ours(padded, condition, np.pad(mask, ((0, 0), (0, 23))))
    assert_close(y_padded, y, "same formulas, float64")
    assert not weights_padded[:, 7:].any() and not weights[~mask].any()
    assert_close(weights.sum(axis=1), np.ones(4), "same formulas, float64")
    assert np.abs(y - y7)[:3].max() > 0.005
    for row, n in zip(rows, lengths):
        alone = theirs(torch.tensor(x[row:row + 1, :n]), torch.tensor(condition[row:row + 1])).detach().numpy()
        assert_close(y[row:row + 1], alone, "pytorch, float64")


def test_attention_over_time_with_a_mask_and_the_covariate_beside_it_learns():
    """The same put right, on a target that has a part from the sequence and a part of the covariate's own."""
    rng = np.random.default_rng(2)
    model = trained(Recall(4, 3, 16, beside=True), *items(rng, 512, offset=1.0))
    x, condition, target, mask = items(rng, 256, offset=1.0)
    y, _ = model.forward(x, condition, mask)
    assert np.mean((y - target) ** 2) < 0.05 * target.var()
    longer = np.pad(x, ((0, 0), (0, 20), (0, 0)), constant_values=np.nan)
    longer_mask = np.pad(mask, ((0, 0), (0, 20)))
    assert_close(model.forward(longer, condition, longer_mask)[0], y, "same formulas, float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneKeyWarning)
        one, moved = (model.forward(x[:, :1], c)[0] for c in (condition, condition[::-1].copy()))
    assert np.abs(one - moved).max() > 0.5, "at T = 1 too"


# ----------------------------------------------------------------------------------------------------------- bad input

X, MEMORY = np.zeros((2, 3, 4), "float32"), np.zeros((2, 5, 6), "float32")
BAD = {
    "heads": (lambda: Attention(4, 6, value_size=4, heads=3), ValueError,
              "heads: expected a number that divides attention_size=6 and value_size=4, got 3"),
    "heads of a pooling": (lambda: AttentionPooling(4, 5, heads=2), ValueError, "heads: ", "attention_size=5, got 2"),
    "score": (lambda: Attention(4, 6, score="cosine"), ValueError, "score: expected one of 'scaled', 'dot', 'addi"),
    "size": (lambda: Attention(4, 0), ValueError, "attention_size: expected a positive integer, got 0"),
    "output": (lambda: Attention(4, 2, output_size=-1), ValueError, "output_size: expected a positive integer, got -1"),
    "causal": (lambda: Attention(4, 2, causal="yes"), TypeError, "causal: expected True or False"),
    "backend": (lambda: AttentionPooling(4, 2, backend="gpu"), ValueError, "backend: expected one of"),
    "another dtype": (lambda: Attention(4, 2).forward(X.astype("float64")), TypeError, "x: expected float32"),
    "another width": (lambda: Attention(3, 2).forward(X), ValueError, "x: expected float32 (B, Tq, D=3)"),
    "no memory": (lambda: Attention(4, 2, memory_size=6).forward(X), ValueError,
                  "memory: expected float32 (B=2, Tk, E=6), got None", "input_size=4"),
    "memory of another batch": (lambda: Attention(4, 2, memory_size=6).forward(X, memory=MEMORY[:1]), ValueError,
                                "memory: expected float32 (B=2, Tk, E=6)", "(1, 5, 6)"),
    "memory, two axes": (lambda: Attention(4, 2, memory_size=6).forward(X, memory=MEMORY[:, 0]), ValueError, "memory: ",
                         "(2, 6)"),
    "memory mask alone": (lambda: Attention(4, 2).forward(X, memory_mask=np.ones((2, 3), bool)), ValueError,
                          "memory_mask: expected None without a memory"),
    "memory mask of numbers": (lambda: Attention(4, 2, memory_size=6).forward(X, memory=MEMORY, memory_mask=np.ones(
        (2, 5))), TypeError, "memory_mask: expected a bool array (B=2, Tk=5)"),
    "causal over another length": (lambda: Attention(4, 2, memory_size=6, causal=True).forward(X, memory=MEMORY),
                                   ValueError, "memory: expected Tk=3 steps, as x has, for causal attention, got 5"),
    "mask of numbers": (lambda: AttentionPooling(4, 2).forward(X, np.ones((2, 3))), TypeError, "mask: expected a boo"),
    "mask and lengths": (lambda: Attention(4, 2).forward(X, np.ones((2, 3), bool), lengths=[1, 2]), ValueError,
                         "mask, lengths: expected at most one"),
    "weights": (lambda: Attention(4, 2).forward(X, return_weights=1), TypeError, "return_weights: expected True or"),
    "no cache": (lambda: Attention(4, 2).backward(None, X), TypeError, "cache: expected what forward returned"),
    "another cache": (lambda: Attention(4, 2).backward(Attention(4, 3).forward(X)[1], X), ValueError,
                      "cache: expected one of this layer"),
    "dy": (lambda: AttentionPooling(4, 2).backward(AttentionPooling(4, 2).forward(X)[1], X), ValueError,
           "dy: expected float32 (B=2, F=4), got float32 (2, 3, 4)"),
    "no fit": (lambda: minilstm.Sequential(Attention(4, 2), minilstm.Linear(4, 1)), ValueError,
               "layers: expected input_size=2 in place 1"),
    "behind a pooling": (lambda: minilstm.Sequential(AttentionPooling(4, 2), Attention(4, 2)), ValueError,
                         "layers: expected layers without time behind one that pools"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, error, *words = BAD[name]
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
