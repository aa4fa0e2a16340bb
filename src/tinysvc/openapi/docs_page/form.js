// The form of a route: an input for each parameter, and the request body.

let inputCount = 0; // for unique ids

/** A labelled input. */
function field(name, given, { required, note, place, input }) {
  const id = `field-${++inputCount}`;
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
  const hint = place === "cookie" ? "Only in the curl command: the browser sends its own cookies." : "";
  const note = [description ?? resolve(schema).schema.description, hint].filter(Boolean).join(" ");
  return { element: field(name, schema, { required, note, place, input }), read: () => ({ parameter, value: input.value }) };
}

/** A select for choices, a textarea for a list (one item per line), else a text field, which also takes invalid values. */
function inputFor(given, required, example) {
  const schema = withoutNull(given);
  const initial = example ?? (required ? sample(given) : undefined);
  const offered = typeOf(schema) === "boolean" ? ["true", "false"] : choices(schema);
  const fallback = given.default ?? schema.default;
  if (offered) {
    const options = offered.map((each) => h("option", { selected: each === initial }, String(each)));
    return h("select", {}, required ? "" : h("option", { value: "" }, fallback === undefined ? "" : `default: ${fallback}`), options);
  }
  const isList = typeOf(schema) === "array";
  const placeholder = isList ? "one per line" : (fallback ?? "") === "" ? "" : `default: ${fallback}`;
  const input = h(isList ? "textarea" : "input", { placeholder, autocomplete: "off", spellcheck: "false", rows: isList ? 2 : undefined });
  if (/integer|number/.test(typeOf(schema))) input.inputMode = "decimal";
  input.value = initial === undefined || initial === null ? "" : isList ? initial.join("\n") : initial;
  return input;
}

/** One body for each media type, with a select if there are several. */
function bodyChoice(bodies) {
  if (bodies.length < 2) return { element: bodies[0]?.element ?? "", body: () => bodies[0] };
  const id = `field-${++inputCount}`;
  const select = h("select", { id }, bodies.map(({ media }) => h("option", {}, media)));
  const current = () => bodies[select.selectedIndex];
  const show = () => bodies.forEach((body) => (body.element.hidden = body !== current()));
  select.addEventListener("input", show);
  show();
  const choice = h("div", { class: "field" }, h("label", { for: id }, "content type"), h("div", {}, select));
  return { element: h("div", {}, choice, bodies.map((body) => body.element)), body: current };
}

/** {media, element, type, value, curl}. A form has no `type`: the browser sets the header, with its boundary. */
function bodyOf([media, content], operation) {
  if (/^multipart|urlencoded/.test(media)) return formBody(media, resolve(content.schema).schema);
  if (!/json/.test(media)) return rawBody(media, content, operation.requestBody.required);
  return jsonBody(media, content, hasNoBody(operation.method) ? "Only in the curl command: a browser sends no body with this method." : "");
}

function jsonBody(media, { schema = {}, example, examples }, remark) {
  const initial = example ?? Object.values(examples ?? {})[0]?.value ?? sample(schema) ?? null;
  const id = `field-${++inputCount}`;
  const text = h("textarea", { id, spellcheck: "false", class: "code", "data-place": "$" });
  text.value = JSON.stringify(initial, null, 2);
  text.rows = Math.min(Math.max(text.value.split("\n").length + 1, 4), 20);
  const element = h(
    "div",
    { class: "body" },
    h("div", {}, h("label", { for: id }, "Body", h("small", {}, media)), text, remark && h("p", { class: "note" }, remark)),
    h("pre", { class: "outline" }, outline(schema)),
  );
  // the curl command has no line breaks: in JSON, they are white space between two tokens
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
    field("Body", {}, { input: text, note: "sent unless a file is chosen" }),
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
    const isList = typeOf(inner) === "array";
    const item = isList ? withoutNull(inner.items ?? {}) : inner;
    const input = isFile(item) ? h("input", { type: "file", multiple: isList }) : inputFor(given, required);
    const values = () => {
      if (input.files) return [...input.files];
      if (!required && input.value === "") return [];
      return isList ? input.value.split("\n").filter(Boolean) : [input.value];
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
  if (value instanceof File) return ["-F", quoted(`${name}=@${curlFileName(value.name)}`)];
  return [isMultipart ? "--form-string" : "--data-urlencode", quoted(`${name}=${value}`)];
}

/** A file name for -F of curl, quoted if it has "," or ";", which would end it. */
function curlFileName(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name;
}
