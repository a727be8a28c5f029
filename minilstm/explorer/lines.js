// The equations: built once for a layer, and filled with the numbers of a step.

function buildLine(line, part) {
    const built = element("div", line.symbols ? "line" : "line given");
    built.dataset.name = line.name;
    const symbols = element("code", "symbols", element("span", "name", axisLabel(line)),
                            line.symbols ? ` = ${line.symbols}` : " ");
    if (line.comment) symbols.append(element("span", "comment", `  # ${line.comment}`));
    const numbers = element("code", "numbers");
    built.append(symbols, numbers);
    const from = origin(line, part);
    if (from) built.append(element("span", "from", from));
    const sums = line.sums.map(sum => buildSum(sum, line));
    built.append(...sums.map(sum => sum.details));
    built.explorer = {line, numbers, sums, name: symbols.firstChild};
    return built;
}

function axisLabel(line) {
    return line.axis === "feature" && state.view.sizes.feature > 1 ? `${line.name}[${state.feature}]` : line.name;
}

function origin(line, part) {                       // where the line comes from, if it does not stand there as it is
    if (!line.symbols) {
        if (line.name === "x") return "the input of this step";
        return part === "forward" ? "from the step before" : "from the steps after, and from the loss";
    }
    return line.code === `${line.name} = ${line.symbols}` ? "" : `in the code: ${line.code}`;
}

function buildSum([text, values, left, right], line) {
    const terms = element("code", "terms");
    const total = element("code", "");
    const details = element("details", "", element("summary", "", element("code", "", `${text} = `), total), terms);
    const sum = {details, terms, total, values, left, right, axis: line.axis};
    details.addEventListener("toggle", () => updateSum(sum));
    return sum;
}

function updateSum({details, terms, total, values, left, right, axis}) {
    total.textContent = shown(number(values, axis, state.t));
    terms.textContent = "";
    if (!details.open || place(axis) < 0) return;
    const weights = state.view.tables[right][place(axis)];
    const products = row(left, state.t).map((factor, k) => `${inside(factor)} * ${inside(weights[k])}`);
    terms.textContent = `= ${products.join(" + ")}`;
}

function inside(number) {                           // of an expression: a negative number in brackets
    return number < 0 ? `(${shown(number)})` : shown(number);
}

function updateLine(built) {
    const {line, numbers, sums, name} = built.explorer;
    const value = number(line.value, line.axis, state.t);
    name.textContent = axisLabel(line);
    sums.forEach(updateSum);
    if (value === null) {
        numbers.textContent = `has no ${line.axis} ${state.view.axes.unit[state.unit]}: it is ` +
            `${state.view.sizes[line.axis]} wide`;
        return;
    }
    const text = line.numbers.map((piece, k) => {
        if (typeof piece === "string") return piece;
        const found = number(piece, line.axis, state.t);
        return k === 0 || line.numbers[k - 1].endsWith("(") ? shown(found) : inside(found);
    }).join("");
    const whole = line.numbers.length === 1;            // one number stands for the expression: it is the value
    numbers.replaceChildren(text && !whole ? `= ${text} ` : "", element("span", "value", `= ${shown(value)}`));
}
