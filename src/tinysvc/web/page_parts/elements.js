// Elements of a page.

/** Make an element. Texts of the document become text or attributes only, never HTML. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== ""));
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

/** Change a text only if it differs: so screen readers and selections are left alone. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** {element, update(job)}: the progress of a durable job as a bar, and the values that it reports. */
function progressBar() {
  const bar = h("i", { class: "bar" });
  const track = h("span", { class: "track", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
  const share = h("span", {});
  const values = h("span", { class: "values" });
  const element = h("span", { class: "made" }, track, share, values);
  const update = ({ id, state, progress, values: given }) => {
    const fraction = state === "succeeded" ? 1 : progress;
    const isKnown = typeof fraction === "number";
    track.hidden = share.hidden = !isKnown;
    if (isKnown) {
      const percent = Math.round(Math.min(1, Math.max(0, fraction)) * 100);
      bar.style.width = `${percent}%`;
      track.setAttribute("aria-valuenow", percent);
      track.setAttribute("aria-label", `Progress of ${id.slice(0, 8)}`);
      set(share, `${percent} %`);
    }
    set(values, Object.entries(given).map(([name, value]) => `${name} ${inShort(value)}`).join(" · "));
  };
  return { element, update };
}

function inShort(value) {
  if (typeof value === "number") return String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
  return typeof value === "string" ? value : JSON.stringify(value);
}
