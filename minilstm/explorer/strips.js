// What is drawn over time: a strip for each quantity, a row for each unit, a column for each step.

const SPARK = 26;                                   // height of the line below a strip, in pixels

function rowHeight(count) {
    return Math.max(2, Math.min(14, Math.floor(84 / count)));
}

function buildStrip([name, axis, table]) {
    const canvas = element("canvas", "");
    const cursor = element("div", "cursor");
    const value = element("span", "value");
    const scale = element("span", "scale");
    const strip = element("div", "strip", element("div", "head", element("span", "name", name), value, scale),
                          element("div", "picture", canvas, cursor));
    canvas.setAttribute("role", "img");
    strip.dataset.name = name;
    const rows = state.view.tables[table].filter((numbers, t) => numbers !== null).flat();
    const most = Math.max(0, ...rows.filter(Number.isFinite).map(Math.abs));
    scale.textContent = `scale ±${shown(most)}`;
    strip.explorer = {name, axis, table, canvas, cursor, value, most};
    const under = event => {                        // the mouse: step and row
        const box = canvas.getBoundingClientRect();
        const count = state.view.axes[axis].length;
        const t = Math.floor((event.clientX - box.left) / box.width * state.view.times.length);
        return {t, k: Math.min(count - 1, Math.floor((event.clientY - box.top) / rowHeight(count)))};
    };
    canvas.addEventListener("mousemove", event => {
        const {t, k} = under(event);
        const numbers = state.view.real[t] ? row(table, t) : null;
        canvas.title = `${name}, ${axis} ${state.view.axes[axis][k]}, step ${state.view.times[t]}: ` +
            (numbers ? shown(numbers[k]) : "masked");
    });
    canvas.addEventListener("click", event => {
        const {t, k} = under(event);
        go(t);
        select(axis === "feature" ? "feature" : "unit", k);
    });
    return strip;
}

function colours() {
    const style = getComputedStyle(document.documentElement);
    const channels = name => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map(hex => parseInt(hex, 16));
    return {low: channels("--low"), zero: channels("--zero"), high: channels("--high"),
            ink: style.getPropertyValue("--ink"), rule: style.getPropertyValue("--rule")};
}

function colour(value, most, {low, zero, high}) {
    const part = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
    const end = value < 0 ? low : high;
    return `rgb(${zero.map((channel, k) => Math.round(channel + part * (end[k] - channel))).join(" ")})`;
}

function drawStrip({axis, name, table, canvas, most}, palette) {
    const count = state.view.axes[axis].length;
    const steps = state.view.times.length;
    const high = rowHeight(count);
    const width = canvas.parentElement.clientWidth;
    const height = count * high + SPARK;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    canvas.setAttribute("aria-label", `${name} over time, the largest absolute value is ${shown(most)}`);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const left = t => Math.round(t * width / steps);
    for (let t = 0; t < steps; t++) {
        const numbers = state.view.real[t] ? row(table, t) : null;
        if (numbers === null) {
            hatch(pen, left(t), left(t + 1), count * high, palette.rule);
            continue;
        }
        for (let k = 0; k < count; k++) {
            pen.fillStyle = Number.isFinite(numbers[k]) ? colour(numbers[k], most, palette) : palette.ink;
            pen.fillRect(left(t), k * high, left(t + 1) - left(t), high);
        }
    }
    pen.strokeStyle = palette.rule;
    pen.strokeRect(0.5, 0.5, width - 1, count * high - 1);
    if (place(axis) >= 0) {
        pen.strokeStyle = palette.ink;
        if (count > 1) pen.strokeRect(0.5, place(axis) * high + 0.5, width - 1, Math.max(1, high - 1));
        drawLine(pen, t => number(table, axis, t), most, width, count * high, palette);
    }
}

function hatch(pen, from, to, height, ink) {        // a masked step
    pen.save();
    pen.beginPath();
    pen.rect(from, 0, to - from, height);
    pen.clip();
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    for (let y = -(to - from); y < height; y += 6) {
        pen.beginPath();
        pen.moveTo(from, y + (to - from));
        pen.lineTo(to, y);
        pen.stroke();
    }
    pen.restore();
}

function drawLine(pen, numberOf, most, width, top, palette) {       // the selected row over time, about a line for 0
    const middle = top + SPARK / 2;
    const steps = state.view.times.length;
    pen.strokeStyle = palette.rule;
    pen.beginPath();
    pen.moveTo(0, middle);
    pen.lineTo(width, middle);
    pen.stroke();
    pen.strokeStyle = palette.ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let apart = true;
    for (let t = 0; t < steps; t++) {
        const value = numberOf(t);
        if (!Number.isFinite(value)) {
            apart = true;
            continue;
        }
        const y = middle - (most > 0 ? value / most : 0) * (SPARK / 2 - 3);
        for (const x of [t, t + 1]) {               // a step is as long as its column
            if (apart) pen.moveTo(x * width / steps, y);
            else pen.lineTo(x * width / steps, y);
            apart = false;
        }
    }
    pen.stroke();
    pen.lineWidth = 1;
}

function drawStrips() {
    const palette = colours();
    document.querySelectorAll(".strip").forEach(strip => drawStrip(strip.explorer, palette));
}

function updateStrip(strip) {
    const {axis, table, cursor, value} = strip.explorer;
    const steps = state.view.times.length;
    const index = axis === "feature" ? state.feature : state.view.axes.unit[state.unit];
    cursor.style.left = `${100 * state.t / steps}%`;
    cursor.style.width = `max(3px, ${100 / steps}%)`;
    value.textContent = place(axis) < 0 ? `has no ${axis} ${index}` : shown(number(table, axis, state.t));
}
