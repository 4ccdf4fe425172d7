// ioredis against the server on the given port; the second port is a cluster.
const assert = require("node:assert");
const Redis = require("ioredis");

async function basics(port) {
  const redis = new Redis(port, { db: 2 });
  await redis.flushall();
  assert.equal(await redis.set("a", 1, "EX", 100), "OK");
  assert.equal(await redis.incr("a"), 2);
  await redis.hset("h", { f: "v", n: 1 });
  assert.deepEqual(await redis.hgetall("h"), { f: "v", n: "1" });
  const piped = await redis.pipeline().set("b", 1).incrby("b", 4).lpush("b", 1).get("b").exec();
  assert.deepEqual(piped.map(([error, value]) => (error ? error.message.slice(0, 9) : value)), ["OK", 5, "WRONGTYPE", "5"]);
  const multi = await redis.multi().set("c", 1).get("c").exec();
  assert.deepEqual(multi, [[null, "OK"], [null, "1"]]);
  redis.defineCommand("both", { numberOfKeys: 2, lua: "return {redis.call('incr', KEYS[1]), redis.call('incr', KEYS[2]), ARGV[1]}" });
  assert.deepEqual(await redis.both("n:1", "n:2", "x"), [1, 1, "x"]);
  for (let n = 0; n < 500; n++) redis.set(`s:${n}`, n);
  let seen = 0;
  for await (const keys of redis.scanStream({ match: "s:*", count: 40 })) seen += keys.length;
  assert.equal(seen, 500);
  const binary = Buffer.from([0, 255, 13, 10]);
  await redis.set("binary", binary);
  assert.deepEqual(await redis.getBuffer("binary"), binary);
  const subscriber = redis.duplicate();
  const heard = new Promise((resolve) => subscriber.on("pmessage", (pattern, channel, text) => resolve([pattern, channel, text])));
  await subscriber.psubscribe("news*");
  await redis.publish("news:1", "hello");
  assert.deepEqual(await heard, ["news*", "news:1", "hello"]);
  const waiting = redis.duplicate();
  const popped = waiting.blpop("queue", 5);
  await redis.rpush("queue", "job");
  assert.deepEqual(await popped, ["queue", "job"]);
  const auto = new Redis(port, { enableAutoPipelining: true });
  assert.equal((await Promise.all(Array.from({ length: 200 }, (_, n) => auto.incr(`auto:${n % 3}`)))).length, 200);
  const monitor = await redis.monitor();
  const shown = new Promise((resolve) => monitor.on("monitor", (time, args) => resolve(args)));
  await redis.get("a");
  assert.deepEqual(await shown, ["get", "a"]);
  for (const client of [redis, subscriber, waiting, auto, monitor]) client.disconnect();
}

async function cluster(port) {
  const nodes = new Redis.Cluster([{ host: "127.0.0.1", port }], { enableReadyCheck: true });
  await Promise.all(Array.from({ length: 300 }, (_, n) => nodes.set(`io:${n}`, n)));
  for (let n = 0; n < 300; n++) assert.equal(await nodes.get(`io:${n}`), String(n));
  assert.deepEqual(await nodes.pipeline().set("{t}1", 1).get("{t}1").exec(), [[null, "OK"], [null, "1"]]);
  await assert.rejects(nodes.mget("one", "two"), /CROSSSLOT/);
  assert.equal(nodes.nodes("master").length, 1);
  nodes.disconnect();
}

async function main() {
  const [port, clusterPort] = process.argv.slice(2).map(Number);
  await basics(port);
  console.log(`ioredis ${require("ioredis/package.json").version}: fine`);
  await cluster(clusterPort);
  console.log("ioredis, Cluster: fine");
}

main().catch((error) => { console.error(error); process.exit(1); });
