// The page: the routes by service and tag, each with a form to try it.

const MOST_LINES = 500; // of a stream; older ones leave the page, however long it runs
const LONGEST_TEXT = 200_000; // characters of one answer

// An operation has its name as its id, which is a function's: what else has an id has one with a dash.

let api = {}; // the OpenAPI document
let numbers = 0; // of elements that need a name
const secrets = new Map(); // of security schemes, by name

/** An element. What comes from the document is only ever text or an attribute, never HTML. */
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

async function start() {
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
  } catch (error) {
    byId("page-found").textContent = `openapi.json could not be read: ${error.message}`;
    return;
  }
  const { title, version, description } = api.info;
  document.title = byId("page-title").textContent = title;
  byId("page-version").textContent = version && version !== "0" ? version : "";
  byId("page-about").append(...prose(description));
  for (const section of sections()) byId("page-routes").append(section);
  prepareFilter();
  prepareSecrets();
  addEventListener("hashchange", openLinked);
  openLinked();
}

/** Simple Markdown as elements: paragraphs, lists, indented blocks, `code`, *emphasis*; else it stays as it was written. */
function prose(text) {
  const blocks = (text ?? "").split(/\n\s*\n/).filter((block) => block.trim());
  return blocks.map((block) => {
    const lines = block.split("\n");
    if (lines.every((line) => /^ {4}/.test(line))) return h("pre", {}, lines.map((line) => line.slice(4)).join("\n"));
    if (lines.every((line) => /^\s*[-*] /.test(line))) return h("ul", {}, lines.map((line) => h("li", {}, inline(line.replace(/^\s*[-*] /, "")))));
    return h("p", {}, inline(block));
  });
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^\s*`](?:[^*`]*[^\s*`])?\*\*|(?<![*\w])\*[^\s*`](?:[^*`]*[^\s*`])?\*(?!\*))/).map((part, index) => {
    if (index % 2 === 0) return part;
    if (part.startsWith("`")) return h("code", {}, part.slice(1, -1));
    return part.startsWith("**") ? h("strong", {}, part.slice(2, -2)) : h("em", {}, part.slice(1, -1));
  });
}

// The list

function operations() {
  return Object.entries(api.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })),
  );
}

/** One for each service, and in it one for each tag; the only service's name is the page's. */
function sections() {
  const services = grouped(operations(), 0);
  const isAlone = services.length === 1;
  const found = services.flatMap(([service, routes]) => {
    const tags = grouped(routes, 1);
    const parts = tags.map(([tag, members]) => section(tag, isAlone ? "h2" : "h3", `tag-${service}-${tag}`, members.map(route)));
    return isAlone ? parts : section(service || "others", "h2", `tag-${service}-`, parts);
  });
  listSections(found.flatMap((each) => [each, ...each.querySelectorAll("section")]));
  return found;
}

/** [[tag, operations]], by the tag at this place of each; those without one first. */
function grouped(operations, place) {
  const groups = new Map([["", []]]);
  for (const operation of operations) {
    const tag = operation.tags?.[place] ?? "";
    groups.set(tag, [...(groups.get(tag) ?? []), operation]);
  }
  return [...groups].filter(([, members]) => members.length);
}

function section(name, level, id, content) {
  const about = (api.tags ?? []).find((tag) => tag.name === name)?.description;
  const heading = name ? [h(level, { id, tabindex: "-1" }, name), h("div", { class: "about" }, prose(about))] : "";
  return h("section", {}, heading, content);
}

function listSections(found) {
  const headings = found.map((each) => each.firstElementChild).filter((each) => each.matches("h2, h3"));
  if (headings.length < 2) return;
  const nav = document.querySelector("nav");
  nav.hidden = false;
  nav.append(h("ul", {}, headings.map(({ id, localName, textContent }) => h("li", { class: localName }, h("a", { href: `#${id}` }, textContent)))));
}

/** A line of the list, which opens to the whole; that is made when it is opened first. */
function route(operation) {
  const { method, path, summary, operationId, deprecated } = operation;
  const kind = operation["x-tinysvc"]?.kind ?? "io";
  const element = h(
    "details",
    { class: `route ${kind}`, id: operationId, "data-words": words(operation) },
    h(
      "summary",
      {},
      h("span", { class: "method" }, method.toUpperCase()),
      h("span", { class: deprecated ? "path old" : "path" }, breakable(path)),
      h("span", { class: "summary" }, deprecated ? h("em", {}, "deprecated ") : "", inline(summary ?? "")),
      h("span", { class: "kind", title: KINDS[kind] }, kind),
    ),
  );
  element.addEventListener("toggle", () => {
    if (!element.open) return;
    if (element.children.length === 1) element.append(opened(operation));
    history.replaceState(null, "", `#${operationId}`);
  });
  return element;
}

const KINDS = { io: "on the event loop", cpu: "in a worker process" };

function words({ method, path, summary, description, operationId, tags, ...rest }) {
  return [method, path, summary, description, operationId, ...(tags ?? []), rest["x-tinysvc"]?.kind].join(" ").toLowerCase();
}

/** A path that may be broken behind its slashes on a narrow screen. */
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part) => [part, h("wbr")]);
}

function prepareFilter() {
  const filter = byId("page-filter");
  filter.addEventListener("input", () => narrow(filter.value.toLowerCase().split(/\s+/)));
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") narrow([(filter.value = "")]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    filter.focus();
  });
}

/** Show the routes that hold each of these words, and the sections that have any. */
function narrow(wanted) {
  const routes = [...document.querySelectorAll(".route")];
  for (const each of routes) each.hidden = !wanted.every((word) => each.dataset.words.includes(word));
  for (const each of document.querySelectorAll("section")) each.hidden = !each.querySelector(".route:not([hidden])");
  const shown = routes.filter((each) => !each.hidden).length;
  byId("page-found").textContent = wanted.some(Boolean) ? `${shown} of ${routes.length} routes` : "";
}

function openLinked() {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (!target?.matches(".route")) return;
  target.open = true;
  target.scrollIntoView();
  target.firstElementChild.focus({ preventScroll: true });
}

function prepareSecrets() {
  const schemes = Object.entries(api.components?.securitySchemes ?? {});
  const button = byId("page-authorize");
  button.hidden = !schemes.length;
  button.addEventListener("click", () => byId("page-secrets").showModal());
  for (const [name, scheme] of schemes) {
    const id = `secret-${name}`;
    const place = scheme.type === "http" ? `${scheme.scheme} token` : `key in the ${scheme.in} ${scheme.name}`;
    const input = h("input", { id, type: "password", autocomplete: "off" });
    input.addEventListener("input", () => {
      secrets.set(name, input.value);
      button.classList.toggle("given", [...secrets.values()].some(Boolean));
      document.dispatchEvent(new Event("authorized")); // the curl lines say it too
    });
    byId("secret-fields").append(h("p", { class: "field" }, h("label", { for: id }, name, h("small", {}, place)), input));
  }
}

// A route, opened

function opened(operation) {
  return h(
    "div",
    { class: "opened" },
    prose(operation.description),
    h("p", { class: "facts" }, facts(operation)),
    operation.responses?.["101"] ? h("p", {}, "It speaks WebSocket; a request by HTTP is told so.") : "",
    trial(operation),
    answers(operation.responses ?? {}),
  );
}

function facts({ "x-tinysvc": where = {}, security = [] }) {
  const { kind = "io", pool, timeout, limit, batch, cache } = where;
  const said = [kind === "cpu" ? `runs in a worker process of the pool “${pool}”` : "runs on the event loop"];
  if (timeout) said.push(`stopped after ${timeout} s`);
  if (limit) said.push(`at most ${limit} at once`);
  if (batch) said.push(`up to ${batch.size} together, waiting ${batch.wait * 1000} ms for each other`);
  if (cache) said.push(`answers are kept for ${cache} s`);
  const schemes = [...new Set(security.flatMap(Object.keys))];
  if (schemes.length) said.push(`asks for ${schemes.join(", ")}${security.some((each) => !Object.keys(each).length) ? ", or nothing" : ""}`);
  return said.join(" · ");
}

/** What may come back: statuses with their media types; the types of what succeeds in full. */
function answers(responses) {
  const rows = Object.entries(responses).map(([status, { description, content = {} }]) => {
    const media = Object.entries(content).map(([type, { schema }]) =>
      h("div", {}, h("code", {}, type), status < "300" && schema ? h("pre", {}, outline(schema)) : ""),
    );
    return h("tr", {}, h("th", { scope: "row" }, status), h("td", {}, inline(description ?? "")), h("td", {}, media));
  });
  const statuses = Object.keys(responses).join(", ");
  return h("details", { class: "more" }, h("summary", {}, `Answers: ${statuses}`), h("table", {}, h("tbody", {}, rows)));
}

/** The form to try a route with, its curl line and its answer. */
function trial(operation) {
  const fields = (operation.parameters ?? []).map(parameterField);
  const bodies = Object.entries(operation.requestBody?.content ?? {}).map((content) => bodyOf(content, operation));
  const chosen = bodyChoice(bodies);
  const answer = answerView();
  const curl = h("code", { tabindex: "0", "aria-label": "curl line" });
  const isStream = /event-stream|ndjson/.test(JSON.stringify(operation.responses ?? {}));
  const read = () => Object.assign(requestOf(operation, fields.map((field) => field.read()), chosen.body()), { isStream });
  const update = () => (curl.textContent = curlLine(read()));
  const buttons = sendButtons(() => read(), answer);
  const form = h(
    "form",
    { oninput: update, onsubmit: buttons.send, onkeydown: (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && form.requestSubmit() },
    fields.map((field) => field.element),
    chosen.element,
    h("div", { class: "actions" }, buttons.elements),
    h("div", { class: "curl" }, curl, copyButton(curl)),
  );
  document.addEventListener("authorized", update);
  update();
  return h("div", { class: "trial" }, form, answer.element);
}

function sendButtons(read, answer) {
  const go = h("button", { class: "main" }, "Send");
  const stop = h("button", { type: "button", disabled: true, onclick: () => running?.abort() }, "Stop");
  let running = null;
  async function onsubmit(event) {
    event.preventDefault();
    running?.abort();
    const mine = (running = new AbortController());
    const form = event.target;
    const show = { ...answer.next(), faults: (errors) => mark(form, errors) };
    mark(form, []);
    stop.disabled = false;
    try {
      await send(read(), show, mine.signal);
    } catch (error) {
      show.failed(mine.signal.aborted ? "Stopped." : `No answer: ${error.message}. Does the server run?`);
    }
    if (running === mine) stop.disabled = true;
  }
  return { elements: [go, stop], send: onsubmit };
}

/** Say at each input what the service finds wrong with it: at `query.limit`, or at `$` what is wrong with `$.items[3]`. */
function mark(form, errors) {
  for (const each of form.querySelectorAll(".fault")) each.remove();
  for (const input of form.querySelectorAll("[data-place]")) {
    const here = input.dataset.place;
    const mine = errors.filter(({ place }) => place.startsWith(here) && /^([.[]|$)/.test(place.slice(here.length)));
    input.setAttribute("aria-invalid", String(mine.length > 0));
    if (!mine.length) continue;
    const said = mine.map(({ place, detail }) => (place === here ? detail : `${place}: ${detail}`)).join("\n");
    input.setAttribute("aria-describedby", `${input.id}-note ${input.id}-fault`);
    input.after(h("p", { class: "fault", id: `${input.id}-fault` }, inline(said)));
  }
}

function copyButton(source) {
  const button = h("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // a page that came over plain HTTP may not write to the clipboard
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

// What is filled in

/** {element, read}: a labelled input. */
function field(name, given, { required, note, place, input }) {
  const id = `field-${++numbers}`;
  input.id = id;
  input.dataset.place = `${place ?? "form"}.${name}`;
  if (note) input.setAttribute("aria-describedby", `${id}-note`);
  const mark = required ? h("abbr", { class: "required", title: "required" }, "*") : "";
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, name, mark, h("small", {}, [place, inWords(given)].filter(Boolean).join(": "))),
    h("div", {}, input, note ? h("p", { class: "note", id: `${id}-note` }, inline(note)) : ""),
  );
}

function parameterField(parameter) {
  const { name, in: place, required, description, schema = {} } = parameter;
  const input = inputFor(schema, required, parameter.example);
  const remark = place === "cookie" ? "In the curl line only: a browser sends the cookies that it has." : "";
  const note = [description ?? resolve(schema).schema.description, remark].filter(Boolean).join(" ");
  return { element: field(name, schema, { required, note, place, input }), read: () => ({ parameter, value: input.value }) };
}

/** A select where there are choices, lines for a list, else a line of text: also what is wrong may be tried. */
function inputFor(given, required, example) {
  const schema = withoutNull(given);
  const filled = example ?? (required ? sample(given) : undefined);
  const offered = typeOf(schema) === "boolean" ? ["true", "false"] : choices(schema);
  const fallback = given.default ?? schema.default;
  if (offered) {
    const options = offered.map((each) => h("option", { selected: each === filled }, String(each)));
    return h("select", {}, required ? "" : h("option", { value: "" }, fallback === undefined ? "" : `default: ${fallback}`), options);
  }
  const isList = typeOf(schema) === "array";
  const placeholder = isList ? "one on each line" : (fallback ?? "") === "" ? "" : `default: ${fallback}`;
  const input = h(isList ? "textarea" : "input", { placeholder, autocomplete: "off", spellcheck: "false", rows: isList ? 2 : undefined });
  if (/integer|number/.test(typeOf(schema))) input.inputMode = "decimal";
  input.value = filled === undefined || filled === null ? "" : isList ? filled.join("\n") : filled;
  return input;
}

/** Of several media types, the one that is chosen. */
function bodyChoice(bodies) {
  if (bodies.length < 2) return { element: bodies[0]?.element ?? "", body: () => bodies[0] };
  const id = `field-${++numbers}`;
  const select = h("select", { id }, bodies.map(({ media }) => h("option", {}, media)));
  const current = () => bodies[select.selectedIndex];
  const show = () => bodies.forEach((body) => (body.element.hidden = body !== current()));
  select.addEventListener("input", show);
  show();
  const choice = h("div", { class: "field" }, h("label", { for: id }, "sent as"), h("div", {}, select));
  return { element: h("div", {}, choice, bodies.map((body) => body.element)), body: current };
}

/** {media, element, type, value, curl}: `type` is left to the browser where only it knows the whole. */
function bodyOf([media, content], operation) {
  if (/^multipart|urlencoded/.test(media)) return formBody(media, resolve(content.schema).schema);
  if (!/json/.test(media)) return rawBody(media, content, operation.requestBody.required);
  return jsonBody(media, content, hasNoBody(operation.method) ? "In the curl line only: a browser sends no body with this method." : "");
}

function jsonBody(media, { schema = {}, example, examples }, remark) {
  const filled = example ?? Object.values(examples ?? {})[0]?.value ?? sample(schema) ?? null;
  const id = `field-${++numbers}`;
  const text = h("textarea", { id, spellcheck: "false", class: "code", "data-place": "$" });
  text.value = JSON.stringify(filled, null, 2);
  text.rows = Math.min(Math.max(text.value.split("\n").length + 1, 4), 20);
  const element = h(
    "div",
    { class: "body" },
    h("div", {}, h("label", { for: id }, "Body", h("small", {}, media)), text, remark && h("p", { class: "note" }, remark)),
    h("pre", { class: "outline" }, outline(schema)),
  );
  // in JSON, a line break can only stand between two words
  return { media, element, type: media, value: () => text.value, curl: () => ["--data-raw", quoted(text.value.replace(/\s*\n\s*/g, " "))] };
}

function rawBody(media, content, required) {
  const type = media.includes("*") ? "application/octet-stream" : media;
  const text = h("textarea", { rows: 3, class: "code", spellcheck: "false" });
  const file = h("input", { type: "file" });
  const isEmpty = () => !required && !file.files.length && !text.value;
  const element = h(
    "div",
    {},
    field("Body", {}, { input: text, note: "sent as it stands, unless there is a file" }),
    field("or a file", { format: "binary" }, { input: file }),
  );
  const value = () => file.files[0] ?? text.value;
  const curl = () => (isEmpty() ? [] : ["--data-binary", quoted(file.files.length ? `@${file.files[0].name}` : text.value)]);
  return { media, element, type, value: () => (isEmpty() ? undefined : value()), curl };
}

function formBody(media, schema) {
  const isMultipart = media.startsWith("multipart");
  const fields = Object.entries(schema.properties ?? {}).map(([name, given]) => {
    const required = (schema.required ?? []).includes(name);
    const inner = withoutNull(given);
    const item = typeOf(inner) === "array" ? withoutNull(inner.items ?? {}) : inner;
    const input = isFile(item) ? h("input", { type: "file", multiple: item !== inner }) : inputFor(given, required);
    const values = () => {
      if (input.files) return [...input.files];
      if (!required && input.value === "") return [];
      return item !== inner ? input.value.split("\n").filter(Boolean) : [input.value];
    };
    return { name, values, element: field(name, given, { required, input, note: inner.description }) };
  });
  const pairs = () => fields.flatMap(({ name, values }) => values().map((value) => [name, value]));
  const value = () => {
    const body = isMultipart ? new FormData() : new URLSearchParams();
    for (const [name, each] of pairs()) body.append(name, each);
    return body;
  };
  const curl = () => pairs().flatMap(([name, each]) => curlField(isMultipart, name, each));
  return { media, element: h("div", {}, fields.map((each) => each.element)), value, curl };
}

function curlField(isMultipart, name, value) {
  if (value instanceof File) return ["-F", quoted(`${name}=@${inForm(value.name)}`)];
  return [isMultipart ? "--form-string" : "--data-urlencode", quoted(`${name}=${value}`)];
}

/** A file's name as -F of curl has it, where "," and ";" would end it. */
function inForm(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}

// The answer

/** What `send` tells is shown as it comes, while it is told by the newest request. */
function answerView() {
  const status = h("p", { class: "status", role: "status" });
  const parts = h("div", { class: "parts" });
  const element = h("div", { class: "answer", hidden: true }, status, parts);
  let newest = null;
  const next = () => {
    element.hidden = false;
    status.className = "status";
    status.textContent = "Waiting for the answer …";
    for (const each of parts.querySelectorAll("[src], [download]")) URL.revokeObjectURL(each.src ?? each.href);
    parts.replaceChildren();
    const shown = (newest = answerParts(status, parts));
    const whileNewest = (show) => (...args) => newest === shown && show(...args);
    return Object.fromEntries(Object.entries(shown).map(([name, show]) => [name, whileNewest(show)]));
  };
  return { element, next };
}

function answerParts(status, parts) {
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
      if (shown < LONGEST_TEXT) text.append(piece.slice(0, LONGEST_TEXT - shown));
      shown += piece.length;
    },
    line(piece, elapsed) {
      if (!lines) parts.append((lines = h("ol", { class: "lines", tabindex: "0", "aria-label": "stream" })));
      const isRead = lines.scrollTop + lines.clientHeight < lines.scrollHeight - 40; // who scrolls back is left there
      lines.append(h("li", {}, h("time", {}, `${(elapsed / 1000).toFixed(2)} s`), h("span", {}, piece)));
      if (++shown > MOST_LINES) lines.firstChild.remove();
      if (!isRead) lines.scrollTop = lines.scrollHeight;
    },
    image(blob) {
      parts.append(h("div", {}, h("img", { src: URL.createObjectURL(blob), alt: "the answer" })));
    },
    file(blob) {
      const link = { href: URL.createObjectURL(blob), download: "answer" };
      parts.append(h("p", {}, h("a", link, `Save the answer (${blob.type || "no type"})`)));
    },
    end(size, elapsed) {
      status.append(h("span", {}, inBytes(size)), lines ? h("span", {}, `${shown} in ${inMilliseconds(elapsed)}`) : "");
      if (text && shown > LONGEST_TEXT) parts.append(h("p", { class: "note" }, `Shown are the first ${LONGEST_TEXT} characters of ${shown}.`));
      if (lines && shown > MOST_LINES) parts.append(h("p", { class: "note" }, `Shown are the last ${MOST_LINES} of ${shown}.`));
    },
    failed(why) {
      if (status.querySelector("b")) status.append(h("span", {}, why));
      else status.textContent = why;
    },
  };
}

/** Server-Timing as bars along the whole time that the answer took. */
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
  return h("details", { class: "more" }, h("summary", {}, "Header fields"), h("pre", {}, lines));
}

function inMilliseconds(number) {
  return number < 1000 ? `${number.toPrecision(3)} ms` : `${(number / 1000).toFixed(2)} s`;
}

function inBytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

start();
