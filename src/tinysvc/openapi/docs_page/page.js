// The page: the routes by service and tag, each with a form that sends requests.

// The id of an operation's element is its operationId, a Python name. All other ids have a dash.

let api = {}; // the OpenAPI document
const secrets = new Map(); // the values that the user gave, by security scheme

async function start() {
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
  } catch (error) {
    byId("page-found").textContent = `Cannot load openapi.json: ${error.message}`;
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

/** Simple Markdown as elements: paragraphs, lists, indented blocks, `code`, *emphasis*. All else stays plain text. */
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

// The list of routes

function operations() {
  return Object.entries(api.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })),
  );
}

/** A section for each service, in it one for each tag. A single service has no section: its name is the page's title. */
function sections() {
  const services = grouped(operations(), 0);
  const isSingle = services.length === 1;
  const found = services.flatMap(([service, routes]) => {
    const tags = grouped(routes, 1);
    const parts = tags.map(([tag, members]) => section(tag, isSingle ? "h2" : "h3", `tag-${service}-${tag}`, members.map(route)));
    return isSingle ? parts : section(service || "others", "h2", `tag-${service}-`, parts);
  });
  listSections(found.flatMap((each) => [each, ...each.querySelectorAll("section")]));
  return found;
}

/** [[tag, operations]] by the tag at this index; operations without one first. */
function grouped(operations, index) {
  const groups = new Map([["", []]]);
  for (const operation of operations) {
    const tag = operation.tags?.[index] ?? "";
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

/** A line of the list. Its details are made when it is opened first. */
function route(operation) {
  const { method, path, summary, operationId, deprecated } = operation;
  const kind = operation["x-tinysvc"]?.kind ?? "io";
  const element = h(
    "details",
    { class: `route ${kind}`, id: operationId, "data-words": searchText(operation) },
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
    if (element.children.length === 1) element.append(details(operation));
    history.replaceState(null, "", `#${operationId}`);
  });
  return element;
}

const KINDS = { io: "runs on the event loop", cpu: "runs in a worker process", job: "a durable job: stored, and run in a worker process" };

function searchText({ method, path, summary, description, operationId, tags, ...rest }) {
  return [method, path, summary, description, operationId, ...(tags ?? []), rest["x-tinysvc"]?.kind].join(" ").toLowerCase();
}

/** A path with line breaks allowed after its slashes, for narrow screens. */
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

/** Show the routes that contain all of these words, and their sections. */
function narrow(words) {
  const routes = [...document.querySelectorAll(".route")];
  for (const each of routes) each.hidden = !words.every((word) => each.dataset.words.includes(word));
  for (const each of document.querySelectorAll("section")) each.hidden = !each.querySelector(".route:not([hidden])");
  const shown = routes.filter((each) => !each.hidden).length;
  byId("page-found").textContent = words.some(Boolean) ? `${shown} of ${routes.length} routes` : "";
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
      document.dispatchEvent(new Event("authorized")); // the curl commands have them, too
    });
    byId("secret-fields").append(h("p", { class: "field" }, h("label", { for: id }, name, h("small", {}, place)), input));
  }
}

// The details of a route

function details(operation) {
  return h(
    "div",
    { class: "opened" },
    prose(operation.description),
    h("p", { class: "facts" }, facts(operation)),
    operation.responses?.["101"] ? h("p", {}, "This route is a WebSocket; an HTTP request gets 426.") : "",
    trial(operation),
    responseTable(operation.responses ?? {}),
  );
}

function facts({ "x-tinysvc": execution = {}, security = [] }) {
  const { kind = "io", pool, timeout, limit, batch, cache, job } = execution;
  if (job && job !== "submit") return "about a durable job; runs on the event loop";
  const parts = [kind === "io" ? "runs on the event loop" : `runs in a worker process of the pool “${pool}”`];
  if (job) parts.push(...jobFacts(execution));
  if (timeout) parts.push(`stopped after ${timeout} s`);
  if (limit) parts.push(`at most ${limit} requests at once`);
  if (batch) parts.push(`batches of up to ${batch.size} requests, collected for ${batch.wait * 1000} ms`);
  if (cache) parts.push(`responses are cached for ${cache} s`);
  const schemes = [...new Set(security.flatMap(Object.keys))];
  if (schemes.length) parts.push(`credentials: ${schemes.join(", ")}${security.some((each) => !Object.keys(each).length) ? " (optional)" : ""}`);
  return parts.join(" · ");
}

function jobFacts({ retry, keep, every, zone }) {
  const days = keep / 86400;
  const found = [retry.attempts === 1 ? "one attempt" : `up to ${retry.attempts} attempts`, `kept for ${days >= 1 ? `${Number(days.toFixed(1))} days` : `${keep} s`}`];
  return every ? [...found, `started at “${every}” (${zone})`] : found;
}

/** The responses by status, with their media types; a success also with its schema. */
function responseTable(responses) {
  const rows = Object.entries(responses).map(([status, { description, content = {} }]) => {
    const media = Object.entries(content).map(([type, { schema }]) =>
      h("div", {}, h("code", {}, type), status < "300" && schema ? h("pre", {}, outline(schema)) : ""),
    );
    return h("tr", {}, h("th", { scope: "row" }, status), h("td", {}, inline(description ?? "")), h("td", {}, media));
  });
  const statuses = Object.keys(responses).join(", ");
  return h("details", { class: "more" }, h("summary", {}, `Responses: ${statuses}`), h("table", {}, h("tbody", {}, rows)));
}

/** The form that sends a request, its curl command and the response. */
function trial(operation) {
  const fields = (operation.parameters ?? []).map(parameterField);
  const bodies = Object.entries(operation.requestBody?.content ?? {}).map((content) => bodyOf(content, operation));
  const chosen = bodyChoice(bodies);
  const response = responseView();
  const curl = h("code", { tabindex: "0", "aria-label": "curl command" });
  const isStream = !verbOf(operation) && /event-stream|ndjson/.test(JSON.stringify(operation.responses ?? {}));
  const read = () => Object.assign(requestOf(operation, fields.map((field) => field.read()), chosen.body()), { isStream });
  const update = () => (curl.textContent = curlCommand(read()));
  const buttons = sendButtons(() => read(), response, operation);
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
  return h("div", { class: "trial" }, form, response.element);
}

function sendButtons(read, response, operation) {
  const go = h("button", { class: "main" }, "Send");
  const stop = h("button", { type: "button", disabled: true, onclick: () => running?.abort() }, "Stop");
  let running = null;
  async function onsubmit(event) {
    event.preventDefault();
    running?.abort();
    const mine = (running = new AbortController());
    const form = event.target;
    const request = read();
    const show = { ...response.next(), errors: (found) => mark(form, found) };
    const isJob = (status) => status === JOB_STATUS[verbOf(operation)]; // with `Prefer: wait`, submit may respond with the result
    show.json = (text, status) => isJob(status) && show.job(durableJob(text, request, mine.signal));
    mark(form, []);
    stop.disabled = false;
    try {
      await send(request, show, mine.signal);
    } catch (error) {
      show.failed(mine.signal.aborted ? "Stopped." : `No response: ${error.message}. Is the server running?`);
    }
    if (running === mine) stop.disabled = true;
  }
  return { elements: [go, stop], send: onsubmit };
}

/** The verb of an operation of a job route, as in "submit"; undefined for other routes. */
function verbOf(operation) {
  return operation["x-tinysvc"]?.job;
}

const JOB_STATUS = { submit: 202, status: 200, retry: 202 }; // of the responses that are a job which may run

/** Show each error at its input: that of `query.limit` there, that of `$.items[3]` at `$`. */
function mark(form, errors) {
  for (const each of form.querySelectorAll(".error")) each.remove();
  for (const input of form.querySelectorAll("[data-place]")) {
    const own = input.dataset.place;
    const mine = errors.filter(({ place }) => place.startsWith(own) && /^([.[]|$)/.test(place.slice(own.length)));
    input.setAttribute("aria-invalid", String(mine.length > 0));
    if (!mine.length) continue;
    const text = mine.map(({ place, detail }) => (place === own ? detail : `${place}: ${detail}`)).join("\n");
    input.setAttribute("aria-describedby", `${input.id}-note ${input.id}-error`);
    input.after(h("p", { class: "error", id: `${input.id}-error` }, inline(text)));
  }
}

function copyButton(source) {
  const button = h("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // over plain HTTP a page may not write to the clipboard
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

start();
