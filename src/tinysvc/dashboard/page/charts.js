// Charts, tables and texts of values.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 180; // points of a chart
const HEIGHT = 40;

/** {element, update(values)}: a line over the last 15 minutes. The newest value is at the right; null is a gap at 0. */
function chart(label) {
  const area = document.createElementNS(SVG, "path");
  const line = document.createElementNS(SVG, "path");
  area.setAttribute("class", "area");
  const element = document.createElementNS(SVG, "svg");
  element.setAttribute("class", "chart");
  element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  element.setAttribute("preserveAspectRatio", "none");
  element.setAttribute("role", "img");
  element.append(area, line);
  const update = (values, text) => {
    const most = Math.max(...values.map((value) => value ?? 0), 0);
    element.setAttribute("aria-label", `${label}, last 15 minutes: at most ${text(most)}`);
    const first = WIDTH - values.length;
    const y = (value) => HEIGHT - 1 - ((value ?? 0) / (most || 1)) * (HEIGHT - 3);
    const points = values.map((value, index) => `${first + index + 0.5},${y(value).toFixed(1)}`).join("L");
    line.setAttribute("d", points ? `M${points}` : "");
    area.setAttribute("d", points ? `M${first + 0.5},${HEIGHT}L${points}L${WIDTH - 0.5},${HEIGHT}Z` : "");
  };
  return { element, update };
}

/** {update(rows)}: a table whose rows stay the same elements, so that a focused button keeps the focus.
 * A column is {title, type, text(row), bad(row)} or {title, cell(row) -> {element, update(row)}}. */
function table(place, label, columns, keyOf) {
  const body = h("tbody", {});
  const head = h("tr", {}, columns.map(({ title, type }) => h("th", { scope: "col", class: type ?? "" }, title)));
  const caption = h("caption", { class: "unseen" }, label);
  place.append(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, caption, h("thead", {}, head), body)));
  const rows = new Map();
  const update = (values, marked) => {
    place.closest("section").hidden = !values.length;
    const keys = new Set(values.map(keyOf));
    for (const [key, row] of rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      rows.delete(key);
    }
    values.forEach((value, index) => {
      const key = keyOf(value);
      if (!rows.has(key)) rows.set(key, tableRow(columns, value));
      const row = rows.get(key);
      row.element.classList.toggle("marked", marked.has(key));
      // an element that is moved loses the focus: leave it where it is
      if (body.children[index] !== row.element && !row.element.contains(document.activeElement)) {
        body.insertBefore(row.element, body.children[index] ?? null);
      }
      row.update(value);
    });
  };
  return { update };
}

function tableRow(columns, first) {
  const cells = columns.map(({ type, text, bad, cell }, index) => {
    const element = h(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : { class: type ?? "" });
    if (!cell) {
      return {
        element,
        update: (row) => {
          set(element, text(row));
          if (bad) element.classList.toggle("bad", Boolean(bad(row)));
        },
      };
    }
    const inner = cell(first);
    element.append(inner.element);
    return { element, update: inner.update };
  });
  const update = (row) => cells.forEach((each) => each.update(row));
  return { element: h("tr", {}, cells.map((each) => each.element)), update };
}

// Texts

function inSeconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 86_400) return `${(value / 86_400).toFixed(1)} d`;
  if (value >= 7200) return `${(value / 3600).toFixed(1)} h`;
  if (value >= 120) return `${(value / 60).toFixed(0)} min`;
  if (value >= 1) return `${Number(value.toPrecision(3))} s`;
  return `${Number((value * 1000).toPrecision(3))} ms`;
}

function inBytes(value) {
  if (!value) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

function perSecond(value) {
  return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(2))}/s`;
}

function counts(values) {
  return Object.entries(values).filter(([, count]) => count).map(([name, count]) => `${count} ${name.replaceAll("_", " ")}`).join(", ");
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
}
