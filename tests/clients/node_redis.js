// node-redis against the server on the given port, over RESP2 and RESP3; the second port is a cluster.
const assert = require("node:assert");
const { createClient, createCluster } = require("redis");

async function basics(port, RESP) {
  const client = createClient({ RESP, socket: { port } });
  client.on("error", (error) => { throw error; });
  await client.connect();
  await client.flushAll();
  await client.set("a", "1", { EX: 100 });
  assert.equal(await client.incr("a"), 2);
  await client.hSet("h", { f: "v", n: "1" });
  assert.deepEqual({ ...(await client.hGetAll("h")) }, { f: "v", n: "1" });
  await client.zAdd("z", [{ score: 1, value: "a" }, { score: 2.5, value: "b" }]);
  assert.deepEqual(await client.zRangeWithScores("z", 0, -1), [{ value: "a", score: 1 }, { value: "b", score: 2.5 }]);
  assert.deepEqual(await client.multi().set("m", "1").get("m").exec(), ["OK", "1"]);
  await client.watch("m");
  await client.set("m", "2");
  await assert.rejects(client.multi().get("m").exec());
  const subscriber = client.duplicate();
  await subscriber.connect();
  const heard = new Promise((resolve) => subscriber.subscribe("news", resolve).then(() => client.publish("news", "hello")));
  assert.equal(await heard, "hello");
  let keys = 0;
  for await (const page of client.scanIterator()) keys += page.length;
  assert.equal(keys, 4);
  const info = await client.xAdd("st", "*", { f: "v" }).then(() => client.xInfoStream("st"));
  assert.equal(info.length, 1);
  await subscriber.destroy();
  await client.destroy();
}

async function main() {
  const [port, clusterPort] = process.argv.slice(2).map(Number);
  for (const RESP of [2, 3]) {
    await basics(port, RESP);
    console.log(`node-redis ${require("redis/package.json").version}, RESP${RESP}: fine`);
  }
  const cluster = createCluster({ rootNodes: [{ socket: { port: clusterPort } }] });
  await cluster.connect();
  for (let n = 0; n < 200; n++) await cluster.set(`nr:${n}`, String(n));
  assert.equal(await cluster.get("nr:77"), "77");
  await cluster.destroy();
  console.log("node-redis, cluster: fine");
}

main().catch((error) => { console.error(error); process.exit(1); });
