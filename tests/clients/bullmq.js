// BullMQ: jobs at once, late, by priority, with a parent; one fails and is tried again.
const assert = require("node:assert");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");

async function main() {
  const connection = { port: Number(process.argv[2]), maxRetriesPerRequest: null };
  const queue = new Queue("work", { connection });
  await queue.obliterate({ force: true });
  const events = new QueueEvents("work", { connection });
  await events.waitUntilReady();
  const done = [];
  const worker = new Worker("work", async (job) => {
    if (job.name === "flaky" && job.attemptsMade === 0) throw new Error("on purpose");
    if (job.name === "parent") return Object.values(await job.getChildrenValues()).reduce((a, b) => a + b, 0);
    done.push(job.name);
    return job.data.n * 2;
  }, { connection, concurrency: 4 });
  const jobs = await queue.addBulk(Array.from({ length: 50 }, (_, n) => ({ name: "plain", data: { n } })));
  const late = await queue.add("late", { n: 3 }, { delay: 200 });
  const first = await queue.add("first", { n: 4 }, { priority: 1 });
  const flaky = await queue.add("flaky", { n: 5 }, { attempts: 2, backoff: { type: "fixed", delay: 50 } });
  for (const [n, job] of jobs.entries()) assert.equal(await job.waitUntilFinished(events, 20000), n * 2);
  assert.equal(await late.waitUntilFinished(events, 20000), 6);
  assert.equal(await first.waitUntilFinished(events, 20000), 8);
  assert.equal(await flaky.waitUntilFinished(events, 20000), 10);
  const flow = new FlowProducer({ connection });
  const tree = await flow.add({ name: "parent", queueName: "work", children: [1, 2, 3].map((n) => ({ name: "child", queueName: "work", data: { n } })) });
  assert.equal(await tree.job.waitUntilFinished(events, 20000), 12);
  await queue.upsertJobScheduler("every", { every: 100, limit: 2 }, { name: "again", data: { n: 1 } });
  const deadline = Date.now() + 20000;
  while (done.filter((name) => name === "again").length < 2) {
    assert(Date.now() < deadline, "the scheduler");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const counts = await queue.getJobCounts("completed", "failed", "waiting");
  assert.deepEqual([counts.failed, counts.waiting], [0, 0]);
  await queue.clean(0, 1000, "completed");
  for (const part of [worker, events, flow, queue]) await part.close();
  console.log(`bullmq ${require("bullmq/package.json").version}: fine`);
}

main().catch((error) => { console.error(error); process.exit(1); });
