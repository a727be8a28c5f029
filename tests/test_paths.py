"""The data behind the pictures: the parts of a gradient add up to it and are those of the formulas; saturation counts
steps."""
import numpy as np
import pytest

import minilstm
from helpers import HOLES, KINDS, assert_close, gradients_of, masks, random_net, states_of
from minilstm.checks import gate_saturation, gradient_paths

GATES = {"LSTM": "ifo", "LSTM, coupled": "io", "GRU": "rz"}


# ------------------------------------------------------------------------------------------------------ gradient_paths

@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_gradient_add_up_to_what_the_layer_hands_back(kind):
    """At every real step, in both layers and both directions, with holes; at the first step it is dh0 and dc0."""
    rng, net, batch = random_net(kind, num_layers=2, bidirectional=True)
    mask = HOLES
    _, cache = net.forward(batch["x"], mask, **states_of(batch))
    gradients = net.backward(cache, **gradients_of(batch))._asdict()
    for layer, direction in np.ndindex(2, 2):
        options = {"row": 1, "layer": layer, "direction": direction, **states_of(batch), **gradients_of(batch)}
        paths = gradient_paths(net, batch["x"], mask, **options)
        trace = minilstm.trace(net, batch["x"], mask, **options)
        assert paths.real.tolist() == mask[1].tolist()
        first = np.flatnonzero(mask[1])[-1 if direction else 0]
        for state in net.cell.states:
            total, parts = paths.total[state], paths.parts[state]
            assert list(parts) == ["direct", *net.cell.blocks, *["output"] * (state == "c")]
            for name, array in {"total": total, **parts}.items():
                assert np.isnan(array[~mask[1]]).all() and np.isfinite(array[mask[1]]).all(), name
            assert_close(sum(parts.values())[mask[1]], total[mask[1]], "same formulas, float64")
            assert_close(total[mask[1]], trace.series(f"d{state}_prev")[mask[1]], "same formulas, float64")
            assert_close(total[first], gradients[f"d{state}0"][layer, direction, 1], "same formulas, float64")
            lengths = paths.norms()[state]
            assert_close(lengths["total"][first], np.linalg.norm(total[first]), "same formulas, float64")


@pytest.mark.parametrize("kind", ["LSTM", "LSTM, coupled", "LSTM, peepholes", "GRU", "RNN, tanh"])
def test_each_part_is_that_of_the_formulas(kind):
    """da_k @ U_k of what the trace shows; beside them the memory line, dc * f, and z."""
    rng, net, batch = random_net(kind)
    paths = gradient_paths(net, batch["x"], row=2, **states_of(batch), **gradients_of(batch))
    trace = minilstm.trace(net, batch["x"], row=2, **states_of(batch), **gradients_of(batch))
    for k, block in enumerate(net.cell.blocks):
        U = net.params["weight_hh_l0"][k * 4:(k + 1) * 4]
        da = trace.series({"n": "da_hn", "a": "da"}.get(block, f"da_{block}"))
        assert_close(paths.parts["h"][block], da @ U, "same formulas, float64", block)
    if kind == "GRU":
        assert_close(paths.parts["h"]["direct"], trace.series("dh") * trace.series("z"), "same formulas, float64")
    else:
        assert not paths.parts["h"]["direct"].any()
    if kind == "LSTM":
        dh, dc, f, o, tanh_c = (trace.series(name) for name in ("dh", "dc", "f", "o", "tanh_c"))
        assert_close(paths.parts["c"]["direct"], dc * f, "same formulas, float64")
        seen = f * o * (1 - tanh_c ** 2)                                # what of dh becomes part of dc_prev
        assert_close(paths.parts["c"]["output"][:-1], batch["dy"][2, :-1] * seen[:-1], "same formulas, float64")
        assert_close(paths.parts["c"]["output"][-1], (batch["dy"][2, -1] + batch["dh_n"][0, 0, 2]) * seen[-1],
                     "same formulas, float64")
        for gate in "ifgo":
            assert_close(paths.parts["c"][gate][:-1], paths.parts["h"][gate][1:] * seen[:-1], "same formulas, float64")


def test_reset_before_goes_through_n_and_r():
    """In the GRU that resets before the product, n is what reaches h_prev through v = r * h_prev, r what reaches it
    through r itself."""
    rng, net, batch = random_net("GRU, reset before")
    paths = gradient_paths(net, batch["x"], **states_of(batch), **gradients_of(batch))
    trace = minilstm.trace(net, batch["x"], **states_of(batch), **gradients_of(batch))
    U_r = net.params["weight_hh_l0"][:4]
    assert_close(paths.parts["h"]["r"], trace.series("da_r") @ U_r, "same formulas, float64")
    assert_close(paths.parts["h"]["n"], trace.series("dh_from_v"), "same formulas, float64")


def test_recurrent_dropout_and_hold_are_seen():
    rng, net, batch = random_net("LSTM", recurrent_dropout=0.5)
    mask = HOLES
    options = {"training": True, "draw": 3, "masked_output": "hold"}
    _, cache = net.forward(batch["x"], mask, **states_of(batch), **options)
    dc0 = net.backward(cache, **gradients_of(batch)).dc0
    paths = gradient_paths(net, batch["x"], mask, row=2, **states_of(batch), **gradients_of(batch), **options)
    first = np.flatnonzero(paths.real)[0]
    assert_close(sum(part[first] for part in paths.parts["c"].values()), dc0[0, 0, 2], "same formulas, float64")


# ---------------------------------------------------------------------------------------------------------- saturation

@pytest.mark.parametrize("kind", GATES)
def test_saturation_counts_real_steps(kind):
    """Against the trace of each sequence, with NaN in masked steps."""
    rng, net, batch = random_net(kind, num_layers=2, B=5, T=9)
    mask = masks(rng, 5, 9)["empty row"]
    x = np.where(mask[:, :, None], 3 * batch["x"], np.nan)
    found = gate_saturation(net, x, mask, layer=1, limits=(0.3, 0.6))
    assert list(found) == list(GATES[kind])
    traces = [minilstm.trace(net, x, mask, row=row, layer=1) for row in range(5) if mask[row].any()]
    for gate, (left, right) in found.items():
        values = np.concatenate([trace.series(gate) for trace in traces])
        values = values[np.isfinite(values).all(axis=1)]
        assert len(values) == mask.sum() < mask.size
        assert left.tolist() == [np.mean(unit < 0.3) for unit in values.T]
        assert right.tolist() == [np.mean(unit > 0.6) for unit in values.T]
    assert all(sum(one[side].sum() for one in found.values()) > 0 for side in (0, 1))
