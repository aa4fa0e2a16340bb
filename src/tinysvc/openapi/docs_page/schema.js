// Schemas (JSON Schema 2020-12, as OpenAPI 3.1 has them): in words, as an outline, and as a sample that fits.

const LONGEST_SAMPLE = 40; // characters or elements, whatever a schema asks for: it is there to be read

/** The schema itself, and the name it has among the components, if any. */
function resolve(schema) {
  let name = "";
  for (let hops = 0; schema && schema.$ref && hops < 20; hops++) {
    name = schema.$ref.split("/").pop();
    schema = (api.components?.schemas ?? {})[name];
  }
  return { schema: schema ?? {}, name };
}

function typeOf(schema) {
  const types = [schema.type].flat().filter((type) => type && type !== "null");
  return types[0] ?? (schema.properties ? "object" : schema.items || schema.prefixItems ? "array" : "");
}

function choices(schema) {
  return "const" in schema ? [schema.const] : schema.enum;
}

function alternatives(schema) {
  return schema.anyOf ?? schema.oneOf;
}

/** The schema itself; of one that may also be nothing, the rest. */
function withoutNull(given) {
  const { schema } = resolve(given);
  const others = (alternatives(schema) ?? []).filter((each) => resolve(each).schema.type !== "null");
  return others.length === 1 ? withoutNull(others[0]) : schema;
}

/** A short text such as "integer, 1 to 10", "list of Item", "up | down". */
function inWords(given) {
  const { schema, name } = resolve(given);
  if (choices(schema)) return choices(schema).map((each) => (each === null ? "nothing" : String(each))).join(" | ");
  if (alternatives(schema)) return alternatives(schema).map(inWords).join(" or ");
  if (schema.type === "null") return "nothing";
  if (typeOf(schema) === "array") return schema.items ? `list of ${inWords(schema.items)}` : name || "list";
  if (typeOf(schema) === "object") return name || "object";
  const base = isFile(schema) ? "file" : typeOf(schema) === "string" ? schema.format ?? "text" : typeOf(schema) || "anything";
  return [base, ...bounds(schema)].join(", ") + ([schema.type].flat().includes("null") ? " or nothing" : "");
}

function bounds(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, pattern } = schema;
  const huge = (number) => number === undefined || Math.abs(number) >= 2 ** 53;
  const said = [];
  if (!huge(minimum) && !huge(maximum)) said.push(`${minimum} to ${maximum}`);
  else if (!huge(minimum)) said.push(`at least ${minimum}`);
  else if (!huge(maximum)) said.push(`at most ${maximum}`);
  if (exclusiveMinimum !== undefined) said.push(`more than ${exclusiveMinimum}`);
  if (exclusiveMaximum !== undefined) said.push(`less than ${exclusiveMaximum}`);
  if (minLength) said.push(minLength === 1 ? "not empty" : `${minLength} characters or more`);
  if (maxLength !== undefined) said.push(`${maxLength} characters or fewer`);
  if (pattern) said.push(`like ${pattern}`);
  return said;
}

function isFile(schema) {
  return schema.format === "binary" || (schema.contentMediaType === "application/octet-stream" && !schema.contentEncoding);
}

/** The fields of an object, one a line, those inside it indented; "?" marks what may be left out. */
function outline(given, indent = "", above = []) {
  const { schema, name } = resolve(given);
  if (name && above.includes(name)) return name; // it holds itself
  const inside = name ? [...above, name] : above;
  if (schema.contentSchema) return `lines of ${outline(schema.contentSchema, indent, inside)}`;
  if (alternatives(schema)) return alternatives(schema).map((each) => outline(each, indent, inside)).join(" or ");
  if (typeOf(schema) === "array" && schema.items) return `list of ${outline(schema.items, indent, inside)}`;
  if (schema.additionalProperties?.constructor === Object && !schema.properties) return `{ any key: ${outline(schema.additionalProperties, indent, inside)} }`;
  if (typeOf(schema) !== "object" || !schema.properties) return inWords(given);
  const required = schema.required ?? [];
  const lines = Object.entries(schema.properties).map(([field, inner]) => {
    const remark = resolve(inner).schema.description ?? inner.description;
    const said = outline(inner, `${indent}  `, inside) + (remark && !inner.$ref ? `  — ${remark.split("\n")[0]}` : "");
    return `${indent}  ${field}${required.includes(field) ? "" : "?"}: ${said}`;
  });
  return `${name || "object"} {\n${lines.join("\n")}\n${indent}}`;
}

/** A value that fits: the author's example or default where there is one. */
function sample(given, above = []) {
  const { schema, name } = resolve(given);
  if (name && above.includes(name)) return undefined; // it holds itself: leave it out
  const inside = name ? [...above, name] : above;
  for (const source of [given, schema]) {
    if (source.examples?.length) return source.examples[0];
    if (source.example !== undefined) return source.example;
    if (source.default !== undefined && source.default !== null) return source.default;
  }
  if (choices(schema)) return choices(schema)[0];
  if (alternatives(schema)) return sampleOfOne(alternatives(schema), inside);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((each) => sample(each, inside)));
  const make = SAMPLES[typeOf(schema)];
  return make ? make(schema, inside) : null;
}

function sampleOfOne(schemas, above) {
  const found = schemas.filter((each) => resolve(each).schema.type !== "null").map((each) => sample(each, above));
  return found.find((each) => each !== undefined) ?? null;
}

const SAMPLES = {
  string: (schema) => (TEXTS[schema.format] ?? "text").padEnd(Math.min(schema.minLength ?? 0, LONGEST_SAMPLE), "x").slice(0, schema.maxLength),
  integer: sampleNumber,
  number: sampleNumber,
  boolean: () => true,
  array(schema, above) {
    if (schema.prefixItems) return schema.prefixItems.map((each) => sample(each, above) ?? null);
    const one = schema.items ? sample(schema.items, above) : null;
    const count = Math.min(schema.minItems || 1, schema.maxItems ?? 1e9, LONGEST_SAMPLE);
    return one === undefined ? [] : Array(count).fill(one);
  },
  object(schema, above) {
    const made = Object.entries(schema.properties ?? {}).map(([field, inner]) => [field, sample(inner, above)]);
    if (!made.length && schema.additionalProperties) made.push(["key", sample(schema.additionalProperties, above)]);
    return Object.fromEntries(made.filter(([, value]) => value !== undefined));
  },
};

function sampleNumber({ minimum, exclusiveMinimum, maximum, exclusiveMaximum, multipleOf }) {
  const lowest = minimum ?? (exclusiveMinimum === undefined ? -Infinity : exclusiveMinimum + 1);
  const highest = maximum ?? (exclusiveMaximum === undefined ? Infinity : exclusiveMaximum - 1);
  const number = Math.min(Math.max(1, lowest), highest);
  return multipleOf ? Math.ceil(number / multipleOf) * multipleOf : number;
}

const TEXTS = {
  date: "2026-01-31",
  "date-time": "2026-01-31T12:00:00Z",
  time: "12:00:00Z",
  "partial-time": "12:00:00",
  decimal: "1.5",
  duration: "PT1M",
  email: "ada@example.org",
  uri: "https://example.org/",
  uuid: "3fa85f64-5717-4562-b3fc-2c963f66afa6",
  ipv4: "192.0.2.1",
  ipv6: "2001:db8::1",
};
