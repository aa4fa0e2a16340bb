// The page: it shows the events of dashboard/events, and presses the buttons of workers by requests.

const PAUSE = 1000; // milliseconds until the next try to connect
const STALE = 3000; // milliseconds without an event after which the page says so

let connection = null; // ends the present stream
let seen = 0; // when the newest event came
let charts = null; // the newest ones

// What is shown

const ALL_WELL = { kind: "well", text: "All is well.", detail: "", target: "" };

function showFindings(findings) {
  const list = byId("page-findings");
  const shown = findings.length ? findings : [ALL_WELL];
  while (list.children.length > shown.length) list.lastElementChild.remove();
  shown.forEach((finding, index) => {
    if (!list.children[index]) list.append(h("li", {}, h("p", { class: "kind" }), h("p", { class: "said" }), h("p", { class: "why" })));
    const item = list.children[index];
    item.className = finding === ALL_WELL ? "finding well" : `finding ${finding.is_severe ? "severe" : ""}`;
    set(item.children[0], finding.kind);
    set(item.children[1], finding.text);
    set(item.children[2], finding.detail);
    item.children[2].hidden = !finding.detail;
  });
  document.title = findings.length ? `(${findings.length}) Dashboard` : "Dashboard";
}

const TILES = [
  { title: "Requests", value: ({ rate }) => perSecond(rate), more: ({ active, connections }) => `${active} active, ${connections} connections`, points: "rate", text: perSecond },
  { title: "Errors", value: ({ errors }) => String(errors), more: ({ requests }) => `of ${requests} in a minute`, points: "errors", text: perSecond },
  { title: "Latency", value: ({ p50 }) => inSeconds(p50), more: ({ p99 }) => `1 in 100: ${inSeconds(p99)}`, points: "p99", text: inSeconds },
  { title: "Memory", value: ({ memory }) => inBytes(memory), more: ({ cpu, lag }) => `${cpu.toFixed(2)} cores, loop ${inSeconds(lag)} late`, points: "memory", text: inBytes },
];

function tiles() {
  const made = TILES.map(({ title, value, more, points, text }) => {
    const [number, note, line] = [h("b", {}), h("small", {}), chart(title)];
    byId("page-tiles").append(h("div", { class: "tile" }, h("dt", {}, title), h("dd", {}, number, note, line.element)));
    return {
      update: (total) => {
        set(number, value(total));
        set(note, more(total));
      },
      draw: () => line.update(charts[points], text),
    };
  });
  return { update: (total) => made.forEach((each) => each.update(total)), draw: () => made.forEach((each) => each.draw()) };
}

/** A cell with a chart, of the charts in `group`. It is drawn again when there are new ones. */
function chartCell(group, keyOf, label, text) {
  return (first) => {
    const line = chart(`${label} of ${keyOf(first)}`);
    let drawn = null;
    const update = (row) => {
      if (drawn === charts || !charts) return;
      drawn = charts;
      line.update(charts[group][keyOf(row)] ?? [], text);
    };
    return { element: line.element, update };
  };
}

const routeKey = ({ route }) => `route ${route}`;
const poolKey = ({ pool }) => `pool ${pool}`;
const workerKey = ({ process, pool, number }) => `worker ${process} ${pool} ${number}`;
const serviceKey = ({ service }) => `service ${service}`;
const artifactKey = ({ artifact }) => `artifact ${artifact}`;
const candidateKey = ({ route, artifact }) => `candidate ${route} ${artifact}`;

const ROUTES = [
  { title: "Route", text: ({ route }) => route },
  { title: "Kind", text: ({ kind, pool }) => (pool && pool !== "default" ? `${kind}, pool ${pool}` : kind) },
  { title: "Rate", type: "number", text: ({ rate }) => perSecond(rate) },
  { title: "Median", type: "number", text: ({ p50 }) => inSeconds(p50) },
  { title: "99 %", type: "number", text: ({ p99 }) => inSeconds(p99) },
  { title: "Errors", type: "number", text: ({ errors, count }) => (errors ? `${errors} of ${count}` : "0"), bad: ({ errors }) => errors },
  { title: "99 % in 15 minutes", cell: chartCell("routes", ({ route }) => route, "99 %", inSeconds) },
];

const POOLS = [
  { title: "Pool", text: ({ pool }) => pool },
  { title: "Workers", text: ({ states }) => counts(states) },
  { title: "Waiting", type: "number", text: ({ waiting }) => String(waiting), bad: ({ always_waiting: always }) => always },
  { title: "Waits", type: "number", text: ({ wait_p50: half, wait_p99: most }) => `${inSeconds(half)}, ${inSeconds(most)}` },
  { title: "Runs", type: "number", text: ({ run_p50: half, run_p99: most }) => `${inSeconds(half)}, ${inSeconds(most)}` },
  { title: "Jobs", type: "number", text: ({ rate }) => perSecond(rate) },
  { title: "Refused", type: "number", text: ({ refused }) => String(refused), bad: ({ refused }) => refused },
  { title: "Queue in 15 minutes", cell: chartCell("pools", ({ pool }) => pool, "Queue", String) },
  { title: "Ends of workers", type: "wide", text: ({ ends }) => counts(ends) || "–" },
];

const WORKERS = [
  { title: "Worker", text: ({ pool, number }) => `${pool} ${number}` },
  { title: "State", text: ({ state, is_replaced: isReplaced }) => (isReplaced ? `${state}, is replaced` : state) },
  { title: "Runs", text: ({ runs }) => runs || "–" },
  { title: "For", type: "number", text: ({ runs, running }) => (runs ? inSeconds(running) : "–") },
  { title: "Request", text: ({ request }) => request || "–" },
  { title: "Memory", type: "number", text: ({ memory }) => inBytes(memory), bad: ({ growth }) => growth },
  { title: "Age", type: "number", text: ({ age }) => inSeconds(age) },
  { title: "Jobs", type: "number", text: ({ jobs }) => String(jobs) },
  { title: "Artifact", text: ({ artifact }) => artifact || "–" },
  { title: "Process", type: "number", text: ({ pid }) => (pid ? String(pid) : "–") },
  { title: "Do", cell: workerButtons },
];

const SERVICES = [
  { title: "Service", text: ({ service }) => service },
  { title: "Replicas", type: "wide", text: replicasText, bad: ({ replicas }) => Object.values(replicas).some(Boolean) },
  { title: "Rate", type: "number", text: ({ rate }) => perSecond(rate) },
  { title: "Median", type: "number", text: ({ p50 }) => inSeconds(p50) },
  { title: "99 %", type: "number", text: ({ p99 }) => inSeconds(p99) },
  { title: "Errors", type: "number", text: ({ errors, count }) => (errors ? `${errors} of ${count}` : "0"), bad: ({ errors }) => errors },
  { title: "Retries", type: "number", text: ({ retries }) => String(retries) },
];

/** The figures of both variants of a route that tries a candidate. */
const both = (textOf) => ({ served, candidate }) => `${textOf(served)} / ${textOf(candidate)}`;

const CANDIDATES = [
  { title: "Route", text: ({ route }) => route },
  { title: "Candidate", text: ({ artifact }) => artifact },
  { title: "Requests", type: "number", text: both(({ count }) => String(count)) },
  { title: "Median", type: "number", text: both(({ p50 }) => inSeconds(p50)) },
  { title: "99 %", type: "number", text: both(({ p99 }) => inSeconds(p99)) },
  { title: "Errors", type: "number", text: both(({ errors }) => String(errors)), bad: ({ candidate }) => candidate.errors },
  { title: "Mean difference", type: "number", text: ({ difference }) => (difference === null ? "–" : String(Number(difference.toPrecision(3)))) },
  { title: "Left out", type: "number", text: ({ skipped }) => String(skipped) },
];

const ARTIFACTS = [
  { title: "Artifact", text: ({ artifact }) => artifact },
  { title: "Version", text: ({ versions }) => (Object.keys(versions).length > 1 ? counts(versions) : Object.keys(versions).join()) },
  { title: "Alias read", type: "number", text: ({ age }) => (age === null ? "–" : `${inSeconds(age)} ago`) },
  { title: "Trouble", type: "wide", text: ({ problem }) => problem || "–", bad: ({ problem }) => problem },
];

const DURABLE = [
  { title: "Route", text: ({ route }) => route },
  { title: "Jobs", type: "wide", text: ({ states }) => counts(states) || "none" },
];

const ERRORS = [
  { title: "Time", text: ({ time }) => clock(time) },
  { title: "Status", type: "number", text: ({ status }) => String(status) },
  { title: "Route", text: ({ route }) => route || "–" },
  { title: "Error", type: "wide", text: ({ error, text }) => `${error}: ${text}` },
  { title: "Request", text: ({ request }) => request },
];

function replicasText({ replicas }) {
  return Object.entries(replicas).map(([name, isAvoided]) => (isAvoided ? `${name} (avoided)` : name)).join(", ") || "–";
}

const shown = {
  tiles: tiles(),
  routes: table(byId("page-routes"), "Routes", ROUTES, routeKey),
  pools: table(byId("page-pools"), "Pools", POOLS, poolKey),
  workers: table(byId("page-workers"), "Workers", WORKERS, workerKey),
  services: table(byId("page-services"), "Calls to other services", SERVICES, serviceKey),
  candidates: table(byId("page-candidates"), "Candidates", CANDIDATES, candidateKey),
  artifacts: table(byId("page-artifacts"), "Models and other artifacts", ARTIFACTS, artifactKey),
  durable: table(byId("page-durable"), "Durable jobs", DURABLE, routeKey),
  errors: table(byId("page-errors"), "Recent errors", ERRORS, ({ time, request }) => `${time} ${request}`),
};

const RECEIVERS = {
  charts: (given) => {
    charts = given;
    shown.tiles.draw();
  },
  now: (given) => {
    const marked = new Set(given.findings.map(({ target }) => target));
    showFindings(given.findings);
    shown.tiles.update(given.total);
    for (const name of ["routes", "pools", "workers", "services", "artifacts", "candidates", "durable", "errors"]) shown[name].update(given[name], marked);
    const count = given.processes.length;
    set(byId("page-about"), `Server process ${given.process}${count > 1 ? `, one of ${count}` : ""}. Rates: last 10 s; times and errors: last minute.`);
    set(byId("page-live"), `live, ${clock(given.time)}`);
  },
};

// The events. Not an EventSource, which cannot send a header.

async function live() {
  for (;;) {
    while (document.hidden || byId("page-secret").open) await pause();
    try {
      connection = new AbortController();
      const response = await fetch("dashboard/events", { headers: secretHeader(), cache: "no-store", signal: connection.signal });
      if (!response.ok) throw Object.assign(new Error(await reason(response)), { status: response.status });
      showProblem("");
      await receive(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      if (error.name !== "AbortError") showProblem(`The page is not up to date: ${error.message}`);
      if (error.status === 401) askForSecret();
    }
    await pause();
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, PAUSE));
}

async function receive(reader) {
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) take(event);
  }
}

function take(event) {
  const name = /^event: (.*)$/m.exec(event)?.[1];
  const data = /^data: (.*)$/m.exec(event)?.[1];
  if (!name || !data) return; // a comment that keeps the connection alive
  seen = Date.now();
  byId("page-live").classList.remove("stale");
  RECEIVERS[name]?.(JSON.parse(data));
}

function watch() {
  if (document.hidden || Date.now() - seen < STALE) return;
  byId("page-live").classList.add("stale");
  set(byId("page-live"), "not live");
}

/** A hidden page costs the server nothing. */
function onVisibility() {
  if (document.hidden) connection?.abort();
}

function showProblem(text) {
  set(byId("page-problem"), text);
  byId("page-problem").hidden = !text;
}

// The buttons of a worker

function workerButtons(first) {
  let worker = first;
  const name = `worker ${first.pool} ${first.number}`;
  const stacks = h("button", { type: "button", "aria-label": `Stacks of ${name}`, "aria-haspopup": "dialog", onclick: () => showStacks(worker) }, "Stacks");
  const replace = h("button", { type: "button", "aria-label": `Replace ${name}`, onclick: () => replaceWorker(worker, replace) }, "Replace");
  const update = (row) => {
    worker = row;
    replace.disabled = row.is_replaced || !["idle", "busy"].includes(row.state) || replace.textContent !== "Replace";
    stacks.disabled = !["idle", "busy"].includes(row.state);
  };
  return { element: h("span", {}, stacks, replace), update };
}

async function ask(verb, { process, pool, number }) {
  const query = new URLSearchParams({ process, pool, worker: number });
  const response = await fetch(`dashboard/${verb}?${query}`, { method: "POST", headers: secretHeader() });
  if (!response.ok) throw new Error(await reason(response));
  return response.text();
}

async function showStacks(worker) {
  const dialog = byId("page-stacks");
  set(byId("stacks-title"), `Stacks of worker ${worker.pool} ${worker.number}${worker.runs ? `, which runs ${worker.runs}` : ""}`);
  byId("stacks-again").onclick = () => showStacks(worker);
  if (!dialog.open) {
    set(byId("stacks-text"), "…");
    dialog.showModal();
  }
  try {
    set(byId("stacks-text"), (await ask("stacks", worker)) || "The worker has no stack.");
  } catch (error) {
    set(byId("stacks-text"), error.message);
  }
}

async function replaceWorker(worker, button) {
  set(button, "Replaced");
  button.disabled = true;
  try {
    await ask("replace", worker);
    showProblem("");
  } catch (error) {
    set(button, "Replace");
    button.disabled = false;
    showProblem(`Worker ${worker.pool} ${worker.number} is not replaced: ${error.message}`);
  }
}

function askForSecret() {
  askForSecretAnd(() => connection?.abort());
}

byId("page-authorize").addEventListener("click", askForSecret);
document.addEventListener("visibilitychange", onVisibility);
setInterval(watch, 1000);
live();
