// Calls rpc_app.py with connect-es over gRPC and Node's own HTTP/2, from a FileDescriptorSet. Prints one JSON document.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const require = createRequire(process.env.NODE_PATH + "/");
const { createFileRegistry, fromBinary } = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");
const { Code, ConnectError, createClient } = require("@connectrpc/connect");
const { compressionGzip, createGrpcTransport } = require("@connectrpc/connect-node");

const [descriptors, address] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const transport = createGrpcTransport({ baseUrl: `http://${address}`, sendCompression: compressionGzip, compressMinBytes: 1024 });
const client = createClient(registry.getService("rpc_app.RpcApp"), transport);

const caught = async (promise) => {
  try {
    return await promise;
  } catch (error) {
    const found = ConnectError.from(error);
    const details = found.details.map((each) => each.type);
    return { code: Code[found.code], message: found.rawMessage, details, pushback: found.metadata.get("grpc-retry-pushback-ms") };
  }
};
const items = async (stream) => {
  const found = [];
  for await (const each of stream) found.push(Number(each.value));
  return found;
};
async function* sent(...requests) {
  yield* requests;
}

const cancelled = async () => {
  const abort = new AbortController();
  const found = [];
  try {
    for await (const each of client.endless({}, { signal: abort.signal })) {
      found.push(each.value);
      abort.abort();
    }
  } catch (error) {
    return Code[ConnectError.from(error).code];
  }
};
const item = { name: "a", count: 4n };
const found = {
  hello: (await client.hello({ name: "Ada", times: 2n })).value,
  item: (await client.item({ item }, { headers: { "x-user": "b" } })).name,
  double: Number((await client.double({ item })).count),
  gzip: (await client.big({ data: new Uint8Array(100000) })).value.length,
  refused: await caught(client.refused({ status: 503n })),
  wrong: await caught(client.item({})),
  late: (await caught(client.stuck({ name: "connect" }, { timeoutMs: 200 }))).code,
  cancelled: await cancelled(),
  numbers: await items(client.numbers({ count: 3n })),
  total: Number((await client.total(sent({ items: { count: 1n } }, { items: { count: 2n } }))).value),
  doubles: await items(client.doubles(sent({ numbers: 1n }, { numbers: 2n }))),
};
console.log(JSON.stringify(found));
process.exit(0);
