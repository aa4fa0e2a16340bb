// Schemas (JSON Schema 2020-12, as in OpenAPI 3.1): in words, as an outline, and as a valid sample.

const MAX_SAMPLE = 40; // characters or items, even if a schema requires more: people read the sample

/** The schema behind $ref, and its name among the components, if any. */
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

/** The schema; of a union with null, the other member. */
function withoutNull(given) {
  const { schema } = resolve(given);
  const others = (alternatives(schema) ?? []).filter((each) => resolve(each).schema.type !== "null");
  return others.length === 1 ? withoutNull(others[0]) : schema;
}

/** A short text such as "integer, 1 to 10", "list of Item", "up | down". */
function inWords(given) {
  const { schema, name } = resolve(given);
  if (choices(schema)) return choices(schema).map((each) => (each === null ? "null" : String(each))).join(" | ");
  if (alternatives(schema)) return alternatives(schema).map(inWords).join(" or ");
  if (schema.type === "null") return "null";
  if (typeOf(schema) === "array") return schema.items ? `list of ${inWords(schema.items)}` : name || "list";
  if (typeOf(schema) === "object") return name || "object";
  const base = isFile(schema) ? "file" : typeOf(schema) === "string" ? schema.format ?? "text" : typeOf(schema) || "anything";
  return [base, ...bounds(schema)].join(", ") + ([schema.type].flat().includes("null") ? " or null" : "");
}

function bounds(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, pattern } = schema;
  const huge = (number) => number === undefined || Math.abs(number) >= 2 ** 53;
  const found = [];
  if (!huge(minimum) && !huge(maximum)) found.push(`${minimum} to ${maximum}`);
  else if (!huge(minimum)) found.push(`at least ${minimum}`);
  else if (!huge(maximum)) found.push(`at most ${maximum}`);
  if (exclusiveMinimum !== undefined) found.push(`more than ${exclusiveMinimum}`);
  if (exclusiveMaximum !== undefined) found.push(`less than ${exclusiveMaximum}`);
  if (minLength) found.push(minLength === 1 ? "not empty" : `${minLength} characters or more`);
  if (maxLength !== undefined) found.push(`${maxLength} characters or fewer`);
  if (pattern) found.push(`matches ${pattern}`);
  return found;
}

function isFile(schema) {
  return schema.format === "binary" || (schema.contentMediaType === "application/octet-stream" && !schema.contentEncoding);
}

/** The fields of an object, one per line, nested ones indented; "?" marks an optional field. */
function outline(given, indent = "", parents = []) {
  const { schema, name } = resolve(given);
  if (name && parents.includes(name)) return name; // recursive
  const inside = name ? [...parents, name] : parents;
  if (schema.contentSchema) return `lines of ${outline(schema.contentSchema, indent, inside)}`;
  if (alternatives(schema)) return alternatives(schema).map((each) => outline(each, indent, inside)).join(" or ");
  if (typeOf(schema) === "array" && schema.items) return `list of ${outline(schema.items, indent, inside)}`;
  if (schema.additionalProperties?.constructor === Object && !schema.properties) return `{ any key: ${outline(schema.additionalProperties, indent, inside)} }`;
  if (typeOf(schema) !== "object" || !schema.properties) return inWords(given);
  const required = schema.required ?? [];
  const lines = Object.entries(schema.properties).map(([field, inner]) => {
    const description = resolve(inner).schema.description ?? inner.description;
    const text = outline(inner, `${indent}  `, inside) + (description && !inner.$ref ? `  — ${description.split("\n")[0]}` : "");
    return `${indent}  ${field}${required.includes(field) ? "" : "?"}: ${text}`;
  });
  return `${name || "object"} {\n${lines.join("\n")}\n${indent}}`;
}

/** A valid value: the author's example or default if there is one. */
function sample(given, parents = []) {
  const { schema, name } = resolve(given);
  if (name && parents.includes(name)) return undefined; // recursive: leave it out
  const inside = name ? [...parents, name] : parents;
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

function sampleOfOne(schemas, parents) {
  const found = schemas.filter((each) => resolve(each).schema.type !== "null").map((each) => sample(each, parents));
  return found.find((each) => each !== undefined) ?? null;
}

const SAMPLES = {
  string: (schema) => (TEXTS[schema.format] ?? "text").padEnd(Math.min(schema.minLength ?? 0, MAX_SAMPLE), "x").slice(0, schema.maxLength),
  integer: sampleNumber,
  number: sampleNumber,
  boolean: () => true,
  array(schema, parents) {
    if (schema.prefixItems) return schema.prefixItems.map((each) => sample(each, parents) ?? null);
    const one = schema.items ? sample(schema.items, parents) : null;
    const count = Math.min(schema.minItems || 1, schema.maxItems ?? 1e9, MAX_SAMPLE);
    return one === undefined ? [] : Array(count).fill(one);
  },
  object(schema, parents) {
    const made = Object.entries(schema.properties ?? {}).map(([field, inner]) => [field, sample(inner, parents)]);
    if (!made.length && schema.additionalProperties) made.push(["key", sample(schema.additionalProperties, parents)]);
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
