// A durable job that a response is about: its state and progress as they change, and the requests that cancel and retry it.

const RECONNECT = 1000; // milliseconds from the end of a stream of changes to the next one
const ENDS = ["succeeded", "failed", "cancelled"];

/** {element, start()}: the view of the job in `text`, the content of the response to `request`. `signal` ends its updates. */
function durableJob(text, request, signal) {
  const ask = requestsOf(JSON.parse(text), request, signal);
  const state = h("span", { class: "state" });
  const progress = progressBar();
  const attempts = h("span", { class: "values" });
  const said = h("p", { class: "note", role: "status" });
  const result = responseView();
  const cancel = h("button", { type: "button", onclick: cancelOrDismiss }, "Cancel the job");
  const retry = h("button", { type: "button", onclick: () => change("POST", "/retry", "", "It starts again.") }, "Retry the job");
  const show = h("button", { type: "button", onclick: () => showResult(ask, result, signal) }, "Show its result");
  const actions = h("div", { class: "actions" }, cancel, retry, show);
  const element = h("div", { role: "group", "aria-label": "durable job" }, h("p", { class: "shown" }, state, attempts), progress.element, actions, said, result.element);
  let job = null;

  function update(given) {
    if (job && given.version < job.version) return; // a stream and a request may overtake each other
    job = given;
    element.className = `durable ${job.state}`;
    set(state, job.state);
    set(attempts, attemptsOf(job));
    progress.update(job);
    cancel.hidden = ["succeeded", "cancelled"].includes(job.state);
    set(cancel, job.state === "failed" ? "Dismiss the job" : "Cancel the job");
    retry.hidden = job.state !== "failed";
    show.hidden = job.state !== "succeeded" && job.state !== "failed";
  }

  function cancelOrDismiss() {
    if (job.state === "failed") change("DELETE", "", "Dismissing …", "Dismissed: it is deleted at the end of its retention.");
    else change("DELETE", "", "Cancelling …", "Cancelled: its process is dead.");
  }

  async function change(method, suffix, before, after) {
    set(said, before);
    cancel.disabled = retry.disabled = true;
    try {
      const response = await ask(method, suffix);
      const content = await response.json();
      set(said, response.ok ? after : (content.detail ?? response.statusText));
      if (response.ok) update(content);
      if (response.ok && method === "POST") watch();
    } catch (error) {
      if (!signal.aborted) set(said, `No response: ${error.message}`);
    }
    cancel.disabled = retry.disabled = false;
  }

  /** Follow the changes of the job until its end. */
  async function watch() {
    while (!ENDS.includes(job.state) && !signal.aborted) {
      try {
        const response = await ask("GET", "", [["accept", "text/event-stream"], ["last-event-id", String(job.version)]]);
        if (!response.ok) return set(said, `Its progress cannot be followed: ${response.status} ${response.statusText}`);
        if (response.status === 204) return;
        await readLines(response, "text/event-stream", { line: (event) => update(JSON.parse(dataOf(event))) }, 0);
        set(said, "");
      } catch (error) {
        if (!signal.aborted) set(said, "No connection to the server. Trying again …");
      }
      await new Promise((resolve) => setTimeout(resolve, RECONNECT));
    }
  }

  update(JSON.parse(text));
  watch();
  return element;
}

/** A function that sends a request about the job, with the credentials and the query of the request that had it as its response. */
function requestsOf({ id }, request, signal) {
  const url = new URL(request.url);
  const path = url.pathname.replace(/\/$/, "");
  const at = path.indexOf(`/${id}`);
  const own = at < 0 ? `${path}/${id}` : path.slice(0, at + id.length + 1);
  const kept = request.headers.filter(([name]) => !/^(content-type|accept|prefer|idempotency-key|last-event-id|job-.*)$/i.test(name));
  const ask = (method, suffix, more = []) => fetch(ask.url(suffix), { method, headers: [...kept, ...more], signal, cache: "no-store" });
  ask.url = (suffix) => `${url.origin}${own}${suffix}${url.search}`;
  ask.headers = kept;
  return ask;
}

async function showResult(ask, view, signal) {
  const shown = view.next();
  try {
    await send({ url: ask.url("/result"), method: "GET", headers: ask.headers }, { ...shown, errors: () => {} }, signal);
  } catch (error) {
    shown.failed(`No response: ${error.message}`);
  }
}

/** The data of one event (HTML, 9.2). */
function dataOf(event) {
  return event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
}

function attemptsOf({ id, state, attempt, max_attempts: most, attempts, problem }) {
  const last = attempts.at(-1);
  const count = attempt ? `attempt ${attempt} of ${Math.max(attempt, most)}` : "not started yet";
  const failed = last?.cause && !["succeeded", "cancelled"].includes(last.cause) ? `${last.cause}: ${last.detail}` : "";
  const reason = state === "failed" ? (problem?.detail ?? failed) : failed;
  return [`job ${id.slice(0, 8)}`, count, reason].filter(Boolean).join(" · ");
}
