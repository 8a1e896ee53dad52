// The maps of the alignment explorer: fields by words. One file, no imports, no requests.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838"];
const DIVERGING = ["#2166ac", "#67a9cf", "#f7f7f7", "#ef8a62", "#b2182b"];

const STYLE = `
.alt-map { font: 14px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--jp-ui-font-color1, CanvasText); }
.alt-map .scroll { overflow-x: auto; }
.alt-map table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; margin: 0 0 1rem; }
.alt-map caption { text-align: left; font-weight: 600; padding: .3rem 0; white-space: nowrap; }
.alt-map th { font-weight: 400; padding: 2px 6px; text-align: left; white-space: nowrap; }
.alt-map thead th[scope=colgroup] { text-align: center; border-bottom: 1px solid; }
.alt-map thead th.word { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: 6px 2px; }
.alt-map thead th.word.begins { border-left: 0; border-right: 2px solid color-mix(in srgb, currentColor 60%, transparent); } /* it is turned */
.alt-map .begins { border-left: 2px solid color-mix(in srgb, currentColor 60%, transparent); }
.alt-map tbody th, .alt-map tfoot th { text-align: right; }
.alt-map tfoot td { text-align: center; }
.alt-map tr.chosen th { font-weight: 700; }
.alt-map td { min-width: 2em; height: 1.7em; padding: 0 3px; text-align: right; }
.alt-map td.cell { cursor: pointer; text-align: center; }
.alt-map td.own { text-decoration: underline; font-weight: 700; }
.alt-map td.cell:focus { outline: 3px solid #e69f00; outline-offset: -3px; }
.alt-map td.pinned { outline: 3px dashed #e69f00; outline-offset: -3px; }
.alt-map .status { min-height: 1.5em; font-weight: 600; }
.alt-map .sentence { max-width: 70rem; line-height: 2; }
.alt-map .sentence span { padding: 2px 4px; border-radius: 3px; }
.alt-map .recovered td, .alt-map .recovered th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top; }
.alt-map .recovered caption, .alt-map .recovered th { white-space: normal; }
`;

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** The colour at `share` in [0, 1] of a scale, and black or white ink, whichever is read better. */
function paint(scale, share) {
  const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  const [first, second] = [channels(scale[low]), channels(scale[low + 1])];
  const rgb = first.map((value, c) => Math.round(value + (second[c] - value) * (place - low)));
  const linear = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return { background: `rgb(${rgb.join(",")})`, color: light > 0.179 ? "#000" : "#fff" };
}

function make(kind, attributes = {}, ...children) {
  const node = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const highest = (panels) => Math.max(1e-9, ...panels.flatMap((panel) => panel.values.flat().map(Math.abs)));

const CAPTIONS = {
  attention: "in %; a field's own words are underlined",
  difference: "in %; a field's own words are underlined",
  need: "what hiding a field's words adds to the loss of a masked field, in nats",
};

/** A cell in words: from which field to which word, how much, and how that is to an even spread. */
function told(panel, row, column) {
  const value = panel.values[row][column];
  if (panel.kind === "need") {
    const field = panel.rows[row];
    if (value === null) return `${panel.title}: the ${field} of this row is unknown to the training split.`;
    return `${panel.title}: without the words of ${panel.columns[column].text}, the loss of ${field} is ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)} nats.`;
  }
  const words = `${panel.title}: ${panel.rows[row]} → ${panel.columns[column].text}: `;
  if (panel.kind === "difference") return `${words}${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(3)}`;
  const even = panel.uniform[column];
  return `${words}${value.toFixed(3)}${even > 0 ? ` (×${(value / even).toFixed(1)} uniform)` : ""}`;
}

/** What stands in a cell: nats, or a share. */
function figure(panel, value) {
  if (panel.kind !== "need") return percent(value, panel.kind === "difference");
  return value === null ? "–" : value.toFixed(2).replace("-", "−");
}

/** A share as whole per cent; a difference with its sign. */
function percent(value, signed) {
  const number = Math.round(100 * value);
  const sign = number < 0 ? "−" : signed && number > 0 ? "+" : "";
  return `${sign}${Math.abs(number)}`;
}

function grid(panel, index, view, top, act) {
  const groups = [];
  panel.columns.forEach((column, c) => {
    const last = groups[groups.length - 1];
    if (last && last.name === column.group) last.size += 1;
    else groups.push({ name: column.group, size: 1, start: c });
  });
  const starts = new Set(groups.map((group) => group.start));
  const flat = groups.every((group) => group.size === 1 && group.name === panel.columns[group.start].text);
  const begins = (c) => (starts.has(c) ? "begins" : "");

  const head = make("thead");
  const shares = panel.kind !== "need";
  const sums = shares ? [["sum", "sum over the words"], ["special", "share of special tokens"]] : [];
  const ends = sums.map(([text, title]) =>
    make("th", { scope: "col", rowspan: flat ? 1 : 2, title, class: text === "sum" ? "begins" : "" }, text));
  const corner = make("th", { scope: "col", rowspan: flat ? 1 : 2 }, "masked field");
  const words = panel.columns.map((column, c) =>
    make("th", { scope: "col", class: `word ${begins(c)}` }, column.text || "␣"));
  if (flat) head.append(make("tr", {}, corner, ...words, ...ends));
  else {
    const above = groups.map((group) =>
      make("th", { scope: "colgroup", colspan: group.size, class: "begins" }, group.name));
    head.append(make("tr", {}, corner, ...above, ...ends), make("tr", {}, ...words));
  }

  const body = make("tbody");
  panel.rows.forEach((name, r) => {
    const line = make("tr", { class: r === view.field ? "chosen" : null },
      make("th", { scope: "row" }, r === view.field ? `▸ ${name}` : name));
    panel.columns.forEach((column, c) => {
      const value = panel.values[r][c];
      const difference = panel.kind === "difference";
      const colours = difference ? paint(DIVERGING, (1 + value / top) / 2) : paint(CIVIDIS, value / top);
      const cell = make("td", {
        class: `cell ${begins(c)} ${column.group === name ? "own" : ""}`,
        tabindex: r === 0 && c === 0 ? 0 : -1,
        "data-place": `${index},${r},${c}`,
        "aria-selected": "false",
      }, figure(panel, value));
      Object.assign(cell.style, colours);
      cell.addEventListener("mouseenter", () => act.tell(index, r, c));
      cell.addEventListener("focus", () => act.enter(index, r, c));
      cell.addEventListener("click", () => act.pin(index, r, c));
      cell.addEventListener("keydown", (event) => act.key(event, index, r, c));
      line.append(cell);
    });
    if (shares) {
      const sum = panel.values[r].reduce((total, value) => total + value, 0);
      const signed = panel.kind === "difference";
      line.append(make("td", { class: "begins" }, percent(sum, signed)), make("td", {}, percent(panel.special[r], signed)));
    }
    body.append(line);
  });
  const foot = make("tfoot");
  if (panel.kind === "attention") {
    const told = panel.uniform.reduce((total, value) => total + value, 0);
    const levels = [...panel.uniform, told, 1 - told];
    foot.append(make("tr", {}, make("th", { scope: "row" }, "uniform"),
      ...levels.map((level, c) => make("td", { class: begins(c) || (c === panel.columns.length ? "begins" : null) }, percent(level)))));
  }
  const caption = make("caption", {}, `${panel.title} (${CAPTIONS[panel.kind]})`);
  return make("div", { class: "scroll" }, make("table", { role: "grid" }, caption, head, body, foot));
}

function sentence(view, top) {
  const panel = view.panels[0];
  const text = make("p", { class: "sentence" }, `With ${panel.rows[view.field]} masked, ${panel.title} reads: `);
  panel.columns.forEach((column, c) => {
    const value = panel.values[view.field][c];
    const word = make("span", {}, column.text, value >= panel.uniform[c] ? make("small", {}, ` ${Math.round(100 * value)} %`) : "");
    Object.assign(word.style, paint(CIVIDIS, value / top));
    text.append(word, " ");
  });
  return text;
}

function recovered(view) {
  const chance = (share) => `${(100 * share).toFixed(1)} %`;
  const lines = view.recovered.map((found) => make("tr", {},
    make("th", { scope: "row" }, found.checkpoint),
    make("td", {}, found.values.map(([value, share]) => `${value === view.truth ? "✓ " : ""}${value} ${chance(share)}`).join("; ")),
    make("td", {}, found.words.map(([truth, best]) =>
      `${truth}: ${best.map(([word, share]) => `${word === truth ? "✓ " : ""}${word} ${chance(share)}`).join(", ")}`).join("; ") || "–")));
  return make("table", { class: "recovered" },
    make("caption", {}, `Recovered values of ${view.panels[0].rows[view.field]}; true value: “${view.truth}”${view.known ? "" : " (too rare in training to have an ID of its own, so it cannot be recovered)"}`),
    make("thead", {}, make("tr", {},
      make("th", { scope: "col" }, "checkpoint"),
      make("th", { scope: "col" }, "the masked ID, from words and other IDs"),
      make("th", { scope: "col" }, "its masked words, from words and IDs"))),
    make("tbody", {}, ...lines));
}

function render({ model, el }) {
  const root = make("div", { class: "alt-map" });
  const style = make("style", {}, STYLE);
  el.append(style, root);

  let mark = () => {};

  function draw() {
    const view = model.get("view");
    root.replaceChildren();
    if (!view || !view.panels) return;
    const status = make("p", { class: "status", "aria-live": "polite" },
      "Move over a cell, or into a map by Tab and the arrow keys; click or Enter pins it.");
    const at = (index, r, c) => root.querySelector(`[data-place="${index},${r},${c}"]`);
    const act = {
      tell(index, r, c) { status.textContent = told(view.panels[index], r, c); },
      enter(index, r, c) { // a map is one tab stop: the cell that was visited last
        root.querySelectorAll(`[data-place^="${index},"][tabindex="0"]`).forEach((cell) => { cell.tabIndex = -1; });
        at(index, r, c).tabIndex = 0;
        act.tell(index, r, c);
      },
      pin(index, r, c) {
        const before = model.get("pinned");
        const same = before && before.panel === index && before.row === r && before.column === c;
        const panel = view.panels[index];
        model.set("pinned", same ? null : {
          panel: index, row: r, column: c, checkpoint: panel.title, field: panel.rows[r],
          word: panel.columns[c].text, value: panel.values[r][c],
        });
        model.save_changes();
        mark();
        if (same) act.tell(index, r, c);
      },
      key(event, index, r, c) {
        const panel = view.panels[index];
        const [rows, columns] = [panel.rows.length - 1, panel.columns.length - 1];
        const moves = {
          ArrowUp: [Math.max(r - 1, 0), c], ArrowDown: [Math.min(r + 1, rows), c],
          ArrowLeft: [r, Math.max(c - 1, 0)], ArrowRight: [r, Math.min(c + 1, columns)],
          Home: [event.ctrlKey ? 0 : r, 0], End: [event.ctrlKey ? rows : r, columns],
        };
        if (event.key === "Enter" || event.key === " ") act.pin(index, r, c);
        else if (moves[event.key]) at(index, ...moves[event.key]).focus();
        else return;
        event.preventDefault();
        event.stopPropagation(); // a notebook has uses of its own for these keys
      },
    };
    mark = () => {
      root.querySelectorAll(".pinned").forEach((cell) => {
        cell.classList.remove("pinned");
        cell.setAttribute("aria-selected", "false");
      });
      const pinned = model.get("pinned");
      const cell = pinned && at(pinned.panel, pinned.row, pinned.column);
      if (!cell) return;
      cell.classList.add("pinned");
      cell.setAttribute("aria-selected", "true");
      status.textContent = `Pinned. ${told(view.panels[pinned.panel], pinned.row, pinned.column)}`;
    };
    const top = (kind) => highest(view.panels.filter((panel) => panel.kind === kind));
    root.append(status);
    view.panels.forEach((panel, index) => root.append(grid(panel, index, view, top(panel.kind), act)));
    if (view.field !== null) {
      const chance = view.probability === null ? "" : ` ALT_ctr predicts ${view.probability.toFixed(3)}.`;
      root.append(sentence(view, top("attention")), recovered(view), make("p", {}, `Label: ${view.label ? "click" : "no click"}.${chance}`));
    }
    root.append(make("p", {}, make("em", {}, view.note)));
    mark();
  }

  const remark = () => mark();
  model.on("change:view", draw);
  model.on("change:pinned", remark);
  draw();
  return () => {
    model.off("change:view", draw);
    model.off("change:pinned", remark);
  };
}

const widget = { render };
export default widget;
