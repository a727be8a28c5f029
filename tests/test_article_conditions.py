"""The examples of two popular answers that bring a condition into an LSTM or a GRU: as they are written, and right.

"How does an LSTM perform with conditional input?"
    1. the condition beside x at every step     right; but a mask made from zeros afterwards finds no padding
    2. a branch of its own                      walks over the batch in place of time; and what it adds cannot interact
    3. attention with the condition as key      one key: the weight is 1, the output is a function of the condition
"How can I incorporate covariates into a PyTorch LSTM model?"
    3. a GRU with "a separate input gate"       raises; and repaired it has none: the covariate is added at the end

What is wrong is computed with minilstm, and held against the libraries where they are installed.  Each repair trains on
one task that needs both: the condition says whether the sum of a sequence, or its negative, is wanted; each sequence
comes with both, and so does its mirror image.  The best that an additive model can answer is 0, whose loss is the
variance of the target.
"""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits
from minilstm import attention
from minilstm.checks import check_interaction, interaction
from minilstm.conditioning import Conditioned
from minilstm.sequences import pad, swap_time_batch

B, T, D, C, H = 6, 10, 3, 4, 5          # all different: what fits by coincidence hides what is wrong


def drawn(layer, seed=0):
    """Random weights and biases, as large as training would give them."""
    rng = np.random.default_rng(seed)
    for _, owner in layer.walk():
        for name, p in owner.params.items():
            owner.params[name] = (0.5 * rng.standard_normal(p.shape)).astype(p.dtype)
    return layer


def numbers(seed=1):
    """x (B,T,D) and a condition (B,C)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, D)), rng.standard_normal((B, C))


def loss_on_switch(model, N=48):
    """Train a model with one output for a sequence, of 3 to 6 steps -> its loss then, as a part of the variance."""
    rng = np.random.default_rng(2)
    x, mask = rng.standard_normal((N // 2, 6, 1)), np.arange(6) < rng.integers(3, 7, N // 2)[:, None]
    x, mask = np.tile(np.concatenate([x, -x]), (2, 1, 1)), np.tile(mask, (4, 1))
    x = np.where(mask[:, :, None], x, np.nan).astype("float32")
    condition = np.repeat([-1.0, 1.0], N)[:, None].astype("float32")
    target = condition * np.nansum(x, axis=1)
    minilstm.fit(model, {"x": x, "condition": condition}, target, mask, epochs=60, batch_size=16,
                 optimizer=minilstm.Adam(0.02))
    return np.mean((model.forward(x, mask, condition=condition)[0] - target)**2) / np.mean(target**2)


def for_switch(strategy, **options):
    net = Conditioned(strategy, 1, 1, 12, **options)
    return minilstm.Sequential(net, minilstm.Pooling("last"), minilstm.Linear(net.output_size, 1))


@pytest.fixture
def torch():
    reason = "comparison with PyTorch: it is not installed (pip install -e '.[peers]')"
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture
def keras(monkeypatch, torch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="comparison with Keras: it is not installed (pip install -e '.[peers]')")


# ----------------------------------------------------------------------------- 1. the condition beside x at every step

def tiled(x, condition):
    return np.concatenate([x, np.repeat(condition[:, None], x.shape[1], axis=1)], axis=2)


def padded():
    x, condition = numbers()
    several = [sequence[:length] for sequence, length in zip(x, (10, 4, 7, 1, 9, 6))]
    return *pad(several), condition


def found_by_zeros(x):
    """The mask that Keras' Masking(0.0) makes."""
    return (x != 0).any(axis=2)


def test_a_mask_from_zeros_finds_no_padding_behind_a_condition():
    """Before the condition stands there it finds all."""
    x, mask, condition = padded()
    assert np.array_equal(found_by_zeros(x), mask) and not mask.all()
    assert found_by_zeros(tiled(x, condition)).all()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_so_it_is_in_keras(keras):
    x, mask, condition = padded()
    masking = keras.layers.Masking(0.0)
    for given, expected in ((x, mask), (tiled(x, condition), np.ones_like(mask))):
        assert np.array_equal(np.array(masking.compute_mask(given)), expected)


def test_without_a_mask_more_padding_is_another_answer():
    """As it is written, by more than a tenth of the largest; with the mask of the lengths not in one bit."""
    x, mask, condition = padded()
    model = drawn(Conditioned("concat", D, C, H, dtype="float64"))
    more = ((0, 0), (0, 13), (0, 0))
    longer, longer_mask = np.pad(x, more), np.pad(mask, more[:2])
    blind = [model.forward(a, condition)[0][:, -1] for a in (x, longer)]
    assert np.abs(blind[0] - blind[1]).max() > 0.1 * np.abs(blind[0]).max()
    right = [model.forward(a, condition, m)[0] for a, m in ((x, mask), (longer, longer_mask))]
    assert same_bits(right[1][:, :T], right[0])
    alone = drawn(minilstm.LSTM(D + C, H, dtype="float64"))
    alone.load_state_dict({name: model.state_dict()[f"recurrent.{name}"] for name in alone.params})
    assert_close(right[0], alone.forward(tiled(x, condition), mask)[0].y, "same formulas, float64")


@pytest.mark.parametrize("strategy", ["concat", "gate_bias"])
def test_with_the_mask_it_trains(strategy):
    assert loss_on_switch(for_switch(strategy)) < 0.15


# ------------------------------------------------------------------------------------------- 2. a branch of its own

def branch_as_written(lstm, branch, head):
    """``nn.LSTM`` without ``batch_first`` takes (T,B,D); it is given (B,T,D), and asked for its outputs [:, -1]."""
    def model(x, condition):
        walked = lstm.forward(x.swapaxes(0, 1).copy())[0].y.swapaxes(0, 1)
        return head.forward(np.concatenate([walked[:, -1], branch.forward(condition)[0]], axis=1))[0]
    return model


def parts():
    return [drawn(layer, seed) for seed, layer in enumerate((
        minilstm.LSTM(D, H, dtype="float64"), minilstm.Linear(C, H, dtype="float64"),
        minilstm.Linear(2 * H, 1, dtype="float64")))]


def test_as_it_is_written_each_sequence_reads_the_last_steps_of_those_before_it():
    """Another first sequence changes all answers, other steps than the last none, and one sequence comes after another:
    in another order of the batch the answers are others."""
    model, (x, condition) = branch_as_written(*parts()), numbers()
    y = model(x, condition)
    other = x.copy()
    other[0] += 1
    assert (np.abs(model(other, condition) - y) > 1e-6).all()
    other = x.copy()
    other[:, :-1] += 1
    assert same_bits(model(other, condition), y)
    assert np.abs(model(x[::-1], condition[::-1])[::-1] - y).max() > 0.01


def test_given_time_first_it_raises_unless_there_are_as_many_sequences_as_steps_and_then_all_rows_are_the_last_one():
    """Then the walk is right, and [:, -1] takes the last sequence, at all its steps: row b is told of the state of the
    last sequence after step b.  Whatever the other sequences are, no bit changes; the answers are off by more than a
    tenth of the largest."""
    (lstm, branch, head), (x, condition) = parts(), numbers()
    model = branch_as_written(lstm, branch, head)
    with pytest.raises(ValueError, match="must match exactly, but along dimension 0"):
        model(swap_time_batch(x), condition)
    x = x[:, :B].copy()                                                         # T == B
    y, states = model(swap_time_batch(x), condition), lstm.forward(x)[0].y
    behind = branch.forward(condition)[0]
    wrong, right = (head.forward(np.concatenate([h, behind], axis=1))[0] for h in (states[-1], states[:, -1]))
    assert_close(y, wrong, "same formulas, float64")
    assert np.abs(y - right)[:-1].max() > 0.1 * np.abs(right).max()
    other = x.copy()
    other[:-1] += 1
    assert same_bits(model(swap_time_batch(other), condition), y)


def test_as_it_is_written_the_branch_only_adds():
    """The text says that it interacts through gates."""
    model, (x, condition) = branch_as_written(*parts()), numbers()
    assert np.abs(interaction(model, x, x[::-1], condition, condition[::-1])).max() < 1e-14


@pytest.mark.peers
def test_so_it_is_in_pytorch(torch):
    """The same numbers, from the example itself."""
    class ConditionalLSTM(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(D, H)
            self.conditional_dense = torch.nn.Linear(C, H)
            self.output_layer = torch.nn.Linear(2 * H, 1)

        def forward(self, input_seq, conditional_vec):
            lstm_out, _ = self.lstm(input_seq)
            conditional_out = self.conditional_dense(conditional_vec)
            return self.output_layer(torch.cat([lstm_out[:, -1, :], conditional_out], dim=1))

    ours, theirs, (x, condition) = parts(), ConditionalLSTM().double(), numbers()
    for layer, module in zip(ours, theirs.children()):
        module.load_state_dict({name: torch.tensor(p) for name, p in layer.state_dict().items()})
    y = theirs(torch.tensor(x), torch.tensor(condition)).detach().numpy()
    assert_close(y, branch_as_written(*ours)(x, condition), "pytorch, float64")
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):      # (T,B,D), as it would be read
        theirs(torch.tensor(x.swapaxes(0, 1)), torch.tensor(condition))


def test_right_a_sequence_knows_no_other_and_a_gate_interacts():
    x, condition = numbers()
    for strategy in ("late", "film", "gated"):
        model = drawn(Conditioned(strategy, D, C, H, dtype="float64"))
        model = minilstm.Sequential(model, minilstm.Pooling("last", dtype="float64"),
                                    drawn(minilstm.Linear(model.output_size, 1, dtype="float64"), 1))
        y, _ = model.forward(x, condition=condition)
        other = x.copy()
        other[0, :-1] += 1                                                      # not its last step
        change = model.forward(other, condition=condition)[0] - y
        assert np.abs(change[0]).max() > 1e-3 and not change[1:].any()
        assert check_interaction(model, x, condition).combines == (strategy != "late")


@pytest.mark.parametrize("strategy", ["film", "gated"])
def test_the_gate_trains(strategy):
    assert loss_on_switch(for_switch(strategy)) < 0.15


def test_the_branch_cannot_be_trained_to_switch():
    assert loss_on_switch(for_switch("late")) > 0.999999


# ------------------------------------------------------------------------- 3. attention with the condition as the key

def test_over_one_key_the_sequence_is_not_read():
    """The context is the condition, at every step, and no gradient reaches the LSTM.  The width of the condition has to
    be H, or it raises."""
    rng = np.random.default_rng(3)
    lstm, (x, _) = drawn(minilstm.LSTM(D, H, dtype="float64")), numbers()
    condition = rng.standard_normal((B, 1, H))
    out, cache = lstm.forward(x)
    with pytest.warns(attention.OneKeyWarning, match="its weight is always 1"):
        context, attended = attention.attend(out.y, condition, condition, scale=1)
    assert_close(context, np.repeat(condition, T, axis=1), "same formulas, float64")
    assert_close(attention.attention_weights(attended), np.ones((B, 1, T, 1)), "same formulas, float64")
    dq, _, _ = attention.attend_backward(attended, rng.standard_normal(context.shape))
    lstm.backward(cache, dq)
    assert max(np.abs(g).max() for g in lstm.grads.values()) < 1e-13
    with pytest.raises(ValueError, match=r"k: expected float64 \(B=6, Tk, A=5\), got float64 \(6, 1, 4\)"):
        attention.attend(out.y, condition[:, :, :C].copy(), condition)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore:You are using a softmax over axis")
def test_so_it_is_in_the_keras_example(keras):
    class AttentionLSTM(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = keras.layers.LSTM(H, return_sequences=True)
            self.attention = keras.layers.Attention()
            self.dense = keras.layers.Dense(2)

        def call(self, input_seq, conditional_vec):
            lstm_out = self.lstm(input_seq)
            context_vector = self.attention([lstm_out, keras.ops.expand_dims(conditional_vec, axis=1)])
            return self.dense(context_vector)

    x, _ = (a.astype("float32") for a in numbers())
    model, condition = AttentionLSTM(), np.random.default_rng(4).standard_normal((B, H)).astype("float32")
    y = np.array(model(x, condition).detach())
    assert y.shape == (B, T, 2), "the answer is one for each step"
    assert np.array_equal(np.array(model(x[::-1].copy(), condition).detach()), y), "whatever the sequence is"
    assert np.abs(y - np.array(model.dense(condition).detach())[:, None]).max() < 1e-6
    model(x, condition).sum().backward()
    gradients = [w.value.grad for w in model.lstm.trainable_weights]
    assert all(g is None or float(g.abs().max()) == 0 for g in gradients), "so the LSTM never learns"


def test_with_the_condition_as_the_query_the_sequence_is_read_and_it_trains():
    x, condition = numbers()
    net = drawn(Conditioned("attend_time", D, C, H, dtype="float64"))
    y, cache = net.forward(x, condition)
    net.backward(cache, np.ones_like(y))
    assert min(np.abs(g).max() for _, layer in net.walk() for g in layer.grads.values()) > 1e-6
    assert check_interaction(net, x, condition).combines
    assert loss_on_switch(for_switch("attend_time")) < 0.15


# --------------------------------------------------------------------------------- a GRU with "a separate input gate"

def gru_parts():
    return [drawn(layer, seed) for seed, layer in enumerate((
        minilstm.GRU(D, H, dtype="float64"), minilstm.Linear(C, H, dtype="float64"),
        minilstm.Linear(2 * H, 1, dtype="float64")))]


def test_repaired_the_covariate_is_added_at_the_end_and_enters_no_state():
    gru, linear, head = gru_parts()

    def model(x, covariate):
        states = gru.forward(x)[0].y                                            # which do not hear of it
        return head.forward(np.concatenate([states[:, -1], linear.forward(covariate)[0]], axis=1))[0]

    x, condition = numbers()
    assert np.abs(interaction(model, x, x[::-1], condition, condition[::-1])).max() < 1e-14


@pytest.mark.peers
def test_the_pytorch_example_raises_and_repaired_only_adds(torch):
    class GRUWithCovariates(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.gru = torch.nn.GRU(D, H, batch_first=True)
            self.cov_linear = torch.nn.Linear(C, H)
            self.fc = torch.nn.Linear(head, 1)

        def forward(self, seq, covariates):
            gru_out, _ = self.gru(seq)
            cov_input = self.cov_linear(covariates)
            cov_input = cov_input.unsqueeze(1).repeat(1, gru_out.shape[1], 1)
            combined_output = torch.cat((gru_out, cov_input), dim=2)
            return self.fc(combined_output[:, -1, :])

    x, condition = (torch.tensor(a) for a in numbers())
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        GRUWithCovariates(H).double()(x, condition)
    model = GRUWithCovariates(2 * H).double()
    assert float(interaction(model, x, x.flip(0), condition, condition.flip(0)).detach().abs().max()) < 1e-14


@pytest.mark.parametrize("strategy, kind", [("gated_cell", "LSTM"), ("gate_bias", "GRU"), ("initial_state", "GRU")])
def test_with_the_covariate_in_the_recurrence_it_interacts_and_trains(strategy, kind):
    """A gate of its own, in the memory of an LSTM; a bias of the GRU's gates; or where the GRU begins."""
    x, condition = numbers()
    net = drawn(Conditioned(strategy, D, C, H, kind=kind, dtype="float64"))
    assert np.abs(net.forward(x, condition)[0] - net.forward(x, condition[::-1].copy())[0]).max() > 1e-3
    assert check_interaction(net, x, condition).combines
    assert loss_on_switch(for_switch(strategy, kind=kind)) < 0.15
