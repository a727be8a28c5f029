"use strict";
// Displays what explore() wrote into the page.  Every number comes from there: here nothing is computed but places and
// colours.

const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const state = {view: data.views[0], t: 0, unit: 0, feature: 0, timer: null};

function element(tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
}

// ------------------------------------------------------------------------------------------------------------- numbers

function shown(number) {                            // four digits
    if (typeof number !== "number") return number === null ? "–" : number;
    const size = Math.abs(number);
    if (size === 0) return "0";
    return size >= 1e-3 && size < 1e4 ? number.toPrecision(4) : number.toExponential(3);
}

function row(table, t) {                            // of a table with a row for each time, or one for all
    const rows = state.view.tables[table];
    return rows.length === 1 ? rows[0] : rows[t];
}

function place(axis) {                              // of the selected unit or feature among an axis's numbers, or -1
    if (axis === "feature") return state.feature;
    return state.view.axes[axis].indexOf(state.view.axes.unit[state.unit]);
}

function number(table, axis, t) {
    const numbers = state.view.real[t] ? row(table, t) : null;
    const k = place(axis);
    return numbers === null || k < 0 ? null : numbers[k];
}

// ---------------------------------------------------------------------------------------------------------------- page

function buildFacts() {
    const gradients = data.gradient === null ? ["Gradients", "none"] :
        data.gradient === "dy" ? ["Gradients", "of a given dy"] :
            ["Loss", `${data.gradient} = ${shown(data.loss)}, of the whole batch`];
    const facts = [["Model", data.model, "model"],
                   ["Sequence", `row ${data.row} of a batch of ${data.B}, ${data.T} steps`], gradients];
    for (const [name, text, className] of facts) {
        at("facts").append(element("div", className || "", element("dt", "", name), element("dd", "", text)));
    }
}

function buildNotes() {
    const {axes, sizes, times} = state.view;
    const notes = [];
    const range = numbers => {                      // 3 to 8, or 3, 5, 8 where numbers between them are missing
        const last = numbers[numbers.length - 1], whole = last - numbers[0] === numbers.length - 1;
        return whole && numbers.length > 1 ? `${numbers[0]} to ${last}` : numbers.join(", ");
    };
    if (axes.unit.length < sizes.unit) {
        notes.push(`${axes.unit.length} of ${sizes.unit} units are shown, ${range(axes.unit)}: ` +
                   "units= of explore() chooses others.");
    }
    if (times.length < data.T) {
        notes.push(`${times.length} of ${data.T} steps are shown, ${range(times)}: ` +
                   "steps= of explore() chooses others.");
    }
    at("notes").replaceChildren(...notes.map(note => element("li", "", note)));
}

function options(select, labels) {
    select.replaceChildren(...labels.map((label, k) => new Option(label, k)));
}

function showView(k) {
    state.view = data.views[k];
    const {axes, forward, backward, strips, times} = state.view;
    state.t = Math.min(state.t, times.length - 1);
    state.unit = Math.min(state.unit, axes.unit.length - 1);
    state.feature = Math.min(state.feature, axes.feature.length - 1);
    options(at("unit"), axes.unit);
    options(at("feature"), axes.feature);
    at("feature-choice").hidden = axes.feature.length < 2;
    at("time").max = times.length - 1;
    at("where").textContent = `${state.view.cell}, as its code stands in ${state.view.file}` +
        (state.view.reverse ? "; this direction walks from the end, so the step before t is t + 1" : "");
    at("strips-forward").replaceChildren(...strips.forward.map(buildStrip));
    at("strips-backward").replaceChildren(...strips.backward.map(buildStrip));
    at("hatched").hidden = state.view.real.every(Boolean);
    at("gradients").hidden = strips.backward.length === 0;
    at("lines-forward").replaceChildren(...forward.map(line => buildLine(line, "forward")));
    at("lines-backward").replaceChildren(...backward.map(line => buildLine(line, "backward")));
    at("no-backward").hidden = data.gradient !== null;
    buildNotes();
    drawStrips();
    update();
}

function carried() {                                // the last state before a masked step, if it is shown
    const back = state.view.reverse ? 1 : -1;
    let t = state.t;
    while (t in state.view.times && !state.view.real[t]) t += back;
    if (!(t in state.view.times)) return "the state is carried over.";
    const states = state.view.strips.forward.filter(([name]) => name === "h" || name === "c");
    return `the state is carried over from step ${state.view.times[t]}: ` +
        states.map(([name, axis, table]) => `${name} = ${shown(number(table, axis, t))}`).join(", ") + ".";
}

function update() {
    const {times, real} = state.view;
    const time = times[state.t];
    at("time").value = state.t;
    at("time").setAttribute("aria-valuetext", `step ${time}${real[state.t] ? "" : ", masked"}`);
    at("now").textContent = `t = ${time} of 0…${data.T - 1}${real[state.t] ? "" : ", masked"}`;
    at("unit").value = state.unit;
    at("feature").value = state.feature;
    at("step-title").textContent = `${time}, unit ${state.view.axes.unit[state.unit]}`;
    at("masked").hidden = real[state.t];
    at("lines").hidden = !real[state.t];
    document.querySelectorAll(".strip").forEach(updateStrip);
    if (real[state.t]) document.querySelectorAll(".line").forEach(updateLine);
    else at("masked").textContent = `Step ${time} is masked: no input is read, and ${carried()}`;
}

function go(t) {
    state.t = Math.max(0, Math.min(state.view.times.length - 1, t));
    update();
}

function select(name, k) {
    state[name] = Math.max(0, Math.min(state.view.axes[name].length - 1, k));
    drawStrips();
    update();
}

function play(on) {
    clearInterval(state.timer);
    state.timer = null;
    if (on) {
        if (state.t === state.view.times.length - 1) go(0);
        state.timer = setInterval(() => {
            go(state.t + 1);
            if (state.t === state.view.times.length - 1) play(false);
        }, 600);
    }
    at("play").setAttribute("aria-pressed", String(on));
    at("play").textContent = on ? "❚❚ Pause" : "▶ Play";
}

const KEYS = {
    ArrowRight: () => go(state.t + 1), ArrowLeft: () => go(state.t - 1), Home: () => go(0),
    End: () => go(Infinity), ArrowDown: () => select("unit", state.unit + 1),
    ArrowUp: () => select("unit", state.unit - 1), " ": () => play(state.timer === null),
};

document.addEventListener("keydown", event => {
    const onControl = ["SELECT", "BUTTON", "SUMMARY"].includes(event.target.tagName);
    const native = event.target.tagName === "SELECT" || onControl && event.key === " ";
    if (!(event.key in KEYS) || native || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
});
at("time").addEventListener("input", () => go(Number(at("time").value)));
at("play").addEventListener("click", () => play(state.timer === null));
at("unit").addEventListener("change", () => select("unit", Number(at("unit").value)));
at("feature").addEventListener("change", () => select("feature", Number(at("feature").value)));
at("layer").addEventListener("change", () => showView(Number(at("layer").value)));
window.addEventListener("resize", drawStrips);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawStrips);

buildFacts();
options(at("layer"), data.views.map(view => view.name));
at("layer-choice").hidden = data.views.length < 2;
showView(0);
