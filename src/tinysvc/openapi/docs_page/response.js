// The response to a request, shown while it arrives.

const MAX_LINES = 500; // of a stream; older lines are removed
const MAX_TEXT = 200_000; // characters of one response

/** The view of a route's responses. The callbacks of `next()` do nothing once a newer request is sent. */
function responseView() {
  const status = h("p", { class: "status", role: "status" });
  const parts = h("div", { class: "parts" });
  const element = h("div", { class: "response", hidden: true }, status, parts);
  let newest = null;
  const next = () => {
    element.hidden = false;
    status.className = "status";
    status.textContent = "Waiting for the response …";
    for (const each of parts.querySelectorAll("[src], [download]")) URL.revokeObjectURL(each.src ?? each.href);
    parts.replaceChildren();
    const shown = (newest = responseParts(status, parts));
    const whileNewest = (show) => (...args) => newest === shown && show(...args);
    return Object.fromEntries(Object.entries(shown).map(([name, show]) => [name, whileNewest(show)]));
  };
  return { element, next };
}

function responseParts(status, parts) {
  let text = null;
  let lines = null;
  let shown = 0;
  return {
    head(response, elapsed) {
      status.className = `status s${String(response.status)[0]}`;
      status.replaceChildren(h("b", {}, `${response.status} ${response.statusText}`), h("span", {}, inMilliseconds(elapsed)));
      if (response.redirected) status.append(h("span", {}, `redirected to ${new URL(response.url).pathname}`));
      parts.append(timingBars(response, elapsed), headerTable(response));
    },
    text(piece) {
      if (!text) parts.append((text = h("pre", { class: "content", tabindex: "0", "aria-label": "content" })));
      if (shown < MAX_TEXT) text.append(piece.slice(0, MAX_TEXT - shown));
      shown += piece.length;
    },
    line(piece, elapsed) {
      if (!lines) parts.append((lines = h("ol", { class: "lines", tabindex: "0", "aria-label": "stream" })));
      const isScrolledBack = lines.scrollTop + lines.clientHeight < lines.scrollHeight - 40;
      lines.append(h("li", {}, h("time", {}, `${(elapsed / 1000).toFixed(2)} s`), h("span", {}, piece)));
      if (++shown > MAX_LINES) lines.firstChild.remove();
      if (!isScrolledBack) lines.scrollTop = lines.scrollHeight;
    },
    job(element) {
      parts.prepend(element);
    },
    image(blob) {
      parts.append(h("div", {}, h("img", { src: URL.createObjectURL(blob), alt: "the response" })));
    },
    file(blob) {
      const link = { href: URL.createObjectURL(blob), download: "response" };
      parts.append(h("p", {}, h("a", link, `Save the response (${blob.type || "no type"})`)));
    },
    end(size, elapsed) {
      status.append(h("span", {}, inBytes(size)), lines ? h("span", {}, `${shown} items in ${inMilliseconds(elapsed)}`) : "");
      if (text && shown > MAX_TEXT) parts.append(h("p", { class: "note" }, `The first ${MAX_TEXT} of ${shown} characters.`));
      if (lines && shown > MAX_LINES) parts.append(h("p", { class: "note" }, `The last ${MAX_LINES} of ${shown} items.`));
    },
    failed(reason) {
      if (status.querySelector("b")) status.append(h("span", {}, reason));
      else status.textContent = reason;
    },
  };
}

/** The Server-Timing header as bars; the full width is the time until the response. */
function timingBars(response, elapsed) {
  const found = timings(response.headers.get("server-timing"));
  if (!found.length) return "";
  const rows = found.map(({ name, duration }) => {
    const bar = h("i", { class: "bar" });
    bar.style.width = `${Math.min(100, Math.max(0.5, (duration / elapsed) * 100))}%`;
    return h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "track" }, bar), inMilliseconds(duration)));
  });
  return h("dl", { class: "timing" }, rows);
}

function headerTable(response) {
  const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return h("details", { class: "more" }, h("summary", {}, "Headers"), h("pre", {}, lines));
}

function inMilliseconds(number) {
  return number < 1000 ? `${number.toPrecision(3)} ms` : `${(number / 1000).toFixed(2)} s`;
}

function inBytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}
