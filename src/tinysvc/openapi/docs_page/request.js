// A request: made from the form, shown as a curl command, and sent; its response is read while it arrives.

/** {method, url, headers, cookies, body, curl}: `body` is for fetch; `curl` is the same body as arguments of curl. */
function requestOf(operation, fields, body) {
  const request = { method: operation.method.toUpperCase(), headers: [], cookies: [], body: undefined, curl: [] };
  let path = operation.path;
  const query = [];
  for (const { parameter, value } of fields) {
    const { name, in: place } = parameter;
    if (place === "path") path = path.replace(`{${name}}`, () => inPath(parameter, value));
    else if (value === "" && !parameter.required) continue;
    else if (place === "query") query.push(...valuesOf(parameter, value).map((each) => [name, each]));
    else if (place === "header") request.headers.push(...valuesOf(parameter, value).map((each) => [name, each]));
    else if (place === "cookie") request.cookies.push(`${name}=${value}`);
  }
  authorize(operation, request, query);
  request.url = new URL(path.replace(/^\//, ""), document.baseURI).href + (query.length ? `?${new URLSearchParams(query)}` : "");
  if (body) Object.assign(request, { body: body.value(), curl: body.curl() });
  if (body?.type) request.headers.push(["content-type", body.type]);
  return request;
}

function inPath(parameter, value) {
  const encoded = encodeURIComponent(value);
  return parameter["x-tinysvc"]?.takes_slashes ? encoded.replaceAll("%2F", "/") : encoded;
}

function valuesOf(parameter, value) {
  return typeOf(withoutNull(parameter.schema)) === "array" ? value.split("\n").filter(Boolean) : [value];
}

/** Add the credentials that the operation needs and the user gave. */
function authorize(operation, request, query) {
  for (const name of new Set((operation.security ?? []).flatMap(Object.keys))) {
    const scheme = api.components.securitySchemes[name];
    const secret = secrets.get(name);
    if (!secret) continue;
    if (scheme.type === "http") request.headers.push(["authorization", `Bearer ${secret}`]);
    else if (scheme.in === "query") query.push([scheme.name, secret]);
    else if (scheme.in === "cookie") request.cookies.push(`${scheme.name}=${secret}`);
    else request.headers.push([scheme.name, secret]);
  }
}

function curlCommand(request) {
  const words = ["curl"];
  if (request.isStream) words.push("-N"); // without buffering
  if (request.method === "HEAD") words.push("-I"); // with -X HEAD, curl would wait for a body
  else if (request.method !== (request.curl.length ? "POST" : "GET")) words.push("-X", request.method);
  words.push(quoted(request.url));
  for (const [name, value] of request.headers) words.push("-H", quoted(value ? `${name}: ${value}` : `${name};`));
  if (request.cookies.length) words.push("-b", quoted(request.cookies.join("; ")));
  return [...words, ...request.curl].join(" ");
}

/** The text as one word of a POSIX shell. */
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Whether a browser sends no body with this method. */
function hasNoBody(method) {
  return /^(get|head)$/i.test(method);
}

/** Send the request. Call `show` with the head, then with each part of the body as it arrives. `signal` stops it. */
async function send(request, show, signal) {
  const started = performance.now();
  const { url, method, headers } = request;
  const body = hasNoBody(method) ? undefined : request.body;
  const response = await fetch(url, { method, headers, body, signal, cache: "no-store" });
  show.head(response, performance.now() - started);
  const type = response.headers.get("content-type") ?? "";
  const size = await readBody(response, type, show, started);
  show.end(size, performance.now() - started);
}

async function readBody(response, type, show, started) {
  if (/event-stream|ndjson|jsonl/.test(type)) return readLines(response, type, show, started);
  if (/^text\//.test(type)) return readPieces(response, show);
  const blob = await response.blob();
  if (/problem\+json/.test(type)) show.errors(errorsOf(await blob.text()));
  if (/json/.test(type)) {
    const text = await blob.text();
    show.text(pretty(text));
    show.json?.(text, response.status);
  } else if (/^image\//.test(type)) show.image(blob);
  else if (blob.size) show.file(blob);
  return blob.size;
}

async function readPieces(response, show) {
  let size = 0;
  const decoder = new TextDecoder();
  for await (const bytes of chunks(response)) {
    size += bytes.length;
    show.text(decoder.decode(bytes, { stream: true }));
  }
  return size;
}

/** Read a stream by events (HTML, 9.2) or by lines of JSON. */
async function readLines(response, type, show, started) {
  let size = 0;
  let rest = "";
  const end = /event-stream/.test(type) ? /\r?\n\r?\n/ : /\r?\n/;
  const decoder = new TextDecoder();
  for await (const bytes of chunks(response)) {
    size += bytes.length;
    const parts = (rest + decoder.decode(bytes, { stream: true })).split(end);
    rest = parts.pop();
    for (const part of parts.filter(Boolean)) show.line(part, performance.now() - started);
  }
  if (rest.trim()) show.line(rest, performance.now() - started);
  return size;
}

async function* chunks(response) {
  const reader = response.body.getReader(); // not every browser supports iteration over a body
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** The `errors` of a problem response that have a place. */
function errorsOf(text) {
  try {
    return JSON.parse(text).errors.filter(({ place }) => typeof place === "string");
  } catch {
    return []; // a problem of the service's author may have other errors, or none
  }
}

/** JSON on several lines. Unchanged if it is not JSON, or if parsing would lose digits of a number. */
function pretty(text) {
  if (/\d{16}/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** [{name, duration}] of a Server-Timing header (W3C), in milliseconds. */
function timings(header) {
  return (header ?? "").split(",").flatMap((each) => {
    const [, name, duration] = /^\s*([\w-]+).*?;\s*dur=([\d.]+)/.exec(each) ?? [];
    return name ? [{ name, duration: Number(duration) }] : [];
  });
}
