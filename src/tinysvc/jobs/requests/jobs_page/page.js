// The page: the durable jobs of all routes. It asks jobs.json once a second, and cancels and retries a job by requests to the job itself.

const PAUSE = 1000; // milliseconds from a response to the next request
const STEP = 50; // jobs that are shown at first, and that "More" adds
const MOST = 200; // jobs that jobs.json returns at once
const STATES = ["running", "queued", "scheduled", "failed", "succeeded", "cancelled"];

const filter = { state: "", route: "" };
const rows = new Map(); // the elements of the shown jobs, by id
let limit = STEP;
let newest = 0; // number of the newest request for the list

function start() {
  const given = new URLSearchParams(location.hash.slice(1));
  filter.state = STATES.includes(given.get("state")) ? given.get("state") : "";
  filter.route = given.get("route") ?? "";
  byId("page-states").append(...["", ...STATES].map(stateButton));
  byId("page-route").addEventListener("input", () => choose({ route: byId("page-route").value }));
  byId("page-more").addEventListener("click", () => {
    limit = Math.min(limit + STEP, MOST);
    load();
  });
  byId("page-authorize").addEventListener("click", askForSecret);
  document.addEventListener("visibilitychange", () => document.hidden || load());
  live();
}

function stateButton(state) {
  return h("button", { type: "button", "data-state": state, onclick: () => choose({ state }) }, state || "all", h("b", {}));
}

function choose(change) {
  Object.assign(filter, change);
  const chosen = Object.entries(filter).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  limit = STEP;
  load();
}

// The list

async function live() {
  for (;;) {
    if (!document.hidden) await load();
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

async function load() {
  const number = ++newest;
  const query = new URLSearchParams({ ...filter, limit });
  try {
    const response = await fetch(`jobs.json?${query}`, { cache: "no-store", headers: secretHeader() });
    if (!response.ok) throw new Error(await reason(response));
    const content = await response.json();
    if (number === newest) show(content);
  } catch (error) {
    if (number === newest) showProblem(`The list is not up to date: ${error.message}`);
  }
}

function show({ jobs, counts, routes, has_more: hasMore, problem }) {
  showProblem(problem ? `The store cannot write: ${problem}` : "");
  showFilters(counts, routes);
  const ids = new Set(jobs.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.element.remove();
    rows.delete(id);
  }
  jobs.forEach((job, index) => {
    if (!rows.has(job.id)) rows.set(job.id, jobRow());
    const row = rows.get(job.id);
    const list = byId("page-list");
    // an element that is moved loses the focus: leave it where it is
    if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    row.update(job);
  });
  byId("page-more").hidden = !hasMore || limit >= MOST;
  set(byId("page-found"), found(jobs.length, hasMore));
}

function found(count, hasMore) {
  if (!count) return "No jobs";
  return hasMore ? `The newest ${count} jobs` : `${count} ${count === 1 ? "job" : "jobs"}`;
}

function showProblem(text) {
  set(byId("page-problem"), text);
  byId("page-problem").hidden = !text;
}

function showFilters(counts, routes) {
  const total = Object.values(counts).reduce((sum, each) => sum + each, 0);
  for (const button of byId("page-states").children) {
    const { state } = button.dataset;
    button.setAttribute("aria-pressed", state === filter.state);
    set(button.lastElementChild, String(state ? (counts[state] ?? 0) : total));
  }
  const select = byId("page-route");
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.join("\n") !== routes.join("\n")) {
    select.replaceChildren(select.options[0], ...routes.map((route) => h("option", { value: route }, route)));
  }
  if (document.activeElement !== select) select.value = filter.route;
}

// One job

/** {element, update(job)}. The element stays the same as long as the job is shown. */
function jobRow() {
  const state = h("span", { class: "state" });
  const route = h("span", { class: "path" });
  const id = h("small", {});
  const progress = progressBar();
  const when = h("span", { class: "when" });
  const choices = jobChoices();
  const said = h("p", { class: "error", hidden: true });
  const facts = jobFacts();
  const element = h("li", {}, state, h("span", { class: "name" }, route, id), progress.element, when, choices.element, said, facts.element);
  const update = (job) => {
    element.className = `job ${job.state}`;
    set(state, job.state);
    set(route, collectionOf(job));
    set(id, job.id.slice(0, 8));
    set(when, whenOf(job));
    const isOrphan = !job.links.self;
    const text = isOrphan ? `The service has no route ${job.route} any more: the job waits for it.` : (job.problem?.detail ?? "");
    set(said, text);
    said.hidden = !text;
    progress.update(job);
    choices.update(job);
    facts.update(job);
  };
  return { element, update };
}

/** The path with the job's values of path parameters, as in "/users/7/trainings". */
function collectionOf({ route, links }) {
  return links.self?.replace(/\/[^/]*$/, "") ?? route;
}

function jobChoices() {
  let job = null;
  const cancel = h("button", { type: "button", onclick: () => askToCancel(job) }, "Cancel");
  const retry = h("button", { type: "button", onclick: () => request(job, "POST", job.links.retry) }, "Retry");
  const result = h("a", { onclick: openWithSecret }, "Result");
  const element = h("span", { class: "choices" }, cancel, retry, result);
  const update = (given) => {
    job = given;
    const word = verbOf(job);
    set(cancel, word);
    const name = `${collectionOf(job)} ${job.id.slice(0, 8)}`;
    cancel.hidden = !job.links.cancel;
    retry.hidden = !job.links.retry;
    result.hidden = !job.links.result || job.state !== "succeeded";
    cancel.setAttribute("aria-label", `${word} ${name}`);
    retry.setAttribute("aria-label", `Retry ${name}`);
    result.setAttribute("aria-label", `Result of ${name}`);
    if (job.links.result) result.href = job.links.result;
  };
  return { element, update };
}

function jobFacts() {
  const summary = h("summary", {});
  const list = h("dl", { class: "facts" });
  let seen = "";
  const update = (job) => {
    const count = job.attempts.length;
    set(summary, job.attempt === 0 ? "Details" : job.attempt === 1 ? "1 attempt" : `${job.attempt} attempts`);
    const facts = [
      ["id", job.id],
      ...["created", "due", "started", "ended", "expires"].filter((name) => job[name]).map((name) => [name, inWords(job[name])]),
      ...(job.priority ? [["priority", String(job.priority)]] : []),
      ...(job.key ? [["key", job.key]] : []),
      ...job.attempts.map((each) => [`attempt ${each.number}`, attemptText(each)]),
    ];
    const text = JSON.stringify([facts, count]);
    if (text === seen) return;
    seen = text;
    list.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  };
  return { element: h("details", { class: "more" }, summary, list), update };
}

function attemptText({ started, ended, cause, detail }) {
  const time = ended ? `${inWords(started)}, for ${inTime(Date.parse(ended) - Date.parse(started))}` : inWords(started);
  return [time, cause || "running", detail].filter(Boolean).join(": ");
}

// Times

function whenOf({ state, created, due, started, ended }) {
  const since = (text) => inTime(Math.max(0, Date.now() - Date.parse(text)));
  if (state === "scheduled") {
    const left = Date.parse(due) - Date.now();
    return left > 0 ? `in ${inTime(left)}` : "now";
  }
  if (state === "queued") return `waits for ${since(created)}`;
  if (state === "running") return `for ${since(started)}`;
  return ended ? `${since(ended)} ago` : "";
}

const UNITS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];

function inTime(milliseconds) {
  const [unit, size] = UNITS.find(([, each]) => milliseconds >= each) ?? UNITS[3];
  return `${Math.floor(milliseconds / size)} ${unit}`;
}

function inWords(time) {
  return new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

// Requests to a job

/** What a DELETE does to the job. */
function verbOf({ state }) {
  return state === "failed" ? "Dismiss" : "Cancel";
}

const EFFECTS = { running: "its process is killed", failed: "it is deleted at the end of its retention" };

function askToCancel(job) {
  const dialog = byId("page-confirm");
  set(byId("confirm-title"), `${verbOf(job)} the job?`);
  set(byId("confirm-yes"), `${verbOf(job)} the job`);
  set(byId("confirm-text"), `${collectionOf(job)} ${job.id.slice(0, 8)}: ${EFFECTS[job.state] ?? "it is never started"}.`);
  dialog.returnValue = "";
  dialog.onclose = () => dialog.returnValue === "yes" && request(job, "DELETE", job.links.cancel);
  dialog.showModal();
}

async function request(job, method, url) {
  try {
    const response = await fetch(url, { method, headers: secretHeader() });
    if (response.status === 401 || response.status === 403) askForSecret();
    if (!response.ok) alertOf(job, await reason(response));
    else alertOf(job, "");
  } catch (error) {
    alertOf(job, `No response: ${error.message}`);
  }
  await load();
}

/** Follow a link with the header of the user, which a browser does not send by itself: save the response as a file. */
async function openWithSecret(event) {
  if (!secret) return;
  event.preventDefault();
  const response = await fetch(event.target.href, { headers: secretHeader() });
  const link = h("a", { href: URL.createObjectURL(await response.blob()), download: "result" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Report a failed request about a job until the next one. */
function alertOf(job, text) {
  const row = rows.get(job.id)?.element;
  row?.querySelector("[role=alert]")?.remove();
  if (text) row?.append(h("p", { class: "error", role: "alert" }, text));
}

function askForSecret() {
  askForSecretAnd(() => load());
}

start();
