// Calls rpc_app.py with @grpc/grpc-js, from the .proto file that --proto prints. Prints one JSON document.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, address] = process.argv.slice(2);
const loaded = loader.loadSync(proto, { keepCase: true, longs: Number, defaults: true, oneofs: true });
const { RpcApp } = grpc.loadPackageDefinition(loaded).rpc_app;
const client = new RpcApp(address, grpc.credentials.createInsecure());

const metadata = (values) => {
  const made = new grpc.Metadata();
  for (const [name, value] of Object.entries(values)) made.set(name, value);
  return made;
};
const unary = (name, request, headers = {}, options = {}) =>
  new Promise((done) => {
    client[name](request, metadata(headers), options, (error, reply) =>
      done(error ? { code: error.code, message: error.code === grpc.status.DEADLINE_EXCEEDED ? "" : error.details, pushback: error.metadata.get("grpc-retry-pushback-ms") } : reply));
  });
const items = (call) =>
  new Promise((done, fail) => {
    const found = [];
    call.on("data", (reply) => found.push(reply)).on("end", () => done(found)).on("error", fail);
  });
const sent = (name, requests) =>
  new Promise((done, fail) => {
    const call = client[name]((error, reply) => (error ? fail(error) : done(reply)));
    for (const each of requests) call.write(each);
    call.end();
  });

(async () => {
  const found = {
    hello: await unary("Hello", { name: "Ada", times: 2 }),
    item: await unary("Item", { item: { name: "a", count: 4 } }, { "x-user": "b" }),
    double: await unary("Double", { item: { name: "c", count: 4 } }),
    refused: await unary("Refused", { status: 503 }),
    wrong: await unary("Item", {}),
    late: await unary("Stuck", { name: "js" }, {}, { deadline: Date.now() + 200 }),
    token: await unary("Whoami", {}, { authorization: "Bearer right" }),
    numbers: await items(client.Numbers({ count: 3 })),
    pieces: await items(client.Pieces({ count: 2 })),
    total: await sent("Total", [{ items: { name: "a", count: 1 } }, { items: { count: 2 } }]),
  };
  const doubles = client.Doubles();
  const replies = items(doubles);
  for (const value of [1, 2]) doubles.write({ numbers: value });
  doubles.end();
  found.doubles = await replies;
  console.log(JSON.stringify(found));
  client.close();
})();
