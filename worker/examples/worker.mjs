// A worker in JavaScript: `npm ci && DATABASE_URL=postgresql://… node worker.mjs`
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

class Permanent extends Error {} // a failure that another attempt would only repeat
// A handler returns the result, or throws: then the job is retried while it has attempts left,
// unless the error is Permanent. The signal aborts when the work is no longer wanted: pass it on.
const handlers = {
  async fetch({ payload }, { signal }) {
    const response = await fetch(payload.url, { signal });
    const body = await response.text();
    if (response.ok) return { status: response.status, body };
    throw new (response.status < 500 ? Permanent : Error)(`${response.status} ${body}`);
  },

  // Its writes and the end of the job are committed together, or not at all: exactly once.
  deposit: ({ payload: { account, amount } }, { completeWith }) =>
    completeWith(async (transaction) => {
      await transaction.query('insert into deposits values ($1, $2)', [account, amount]);
      return { deposited: amount };
    }),
};

const lease = Number(process.env.WORKER_LEASE ?? 30); // seconds
const poll = Number(process.env.POLL_SECONDS ?? 2);
const grace = Number(process.env.WORKER_GRACE ?? 8);
const concurrency = Number(process.env.WORKER_CONCURRENCY ?? 10);
const ignore = () => {}; // that a connection broke: the next query opens another
const config = {
  connectionString: process.env.DATABASE_URL, connectionTimeoutMillis: 5000, keepAlive: true,
};
const connections = (max, timeouts) =>
  new pg.Pool({ ...config, max, idleTimeoutMillis: 0, ...timeouts })
    .on('error', ignore)
    .on('connect', (client) => client.on('error', ignore).on('notification', wake));
const timeouts = { statement_timeout: 10000, query_timeout: 15000 };
const claims = connections(1, timeouts).on('connect', () => (listens = false));
const heart = connections(1, timeouts);
const pool = connections(concurrency); // for handlers, and to end runs
const running = new Map(); // claim_id -> { job, controller, done }
let [stopping, listens, alarm] = [false, false, new AbortController()];
const wake = () => alarm.abort();
const log = (job, text) => console.log(`${new Date().toISOString()} job ${job.id} ${text}`);

// Repeats the step until it returns true; less and less often while the database is away.
async function repeat(step) {
  for (let failures = 0; ; ) {
    try {
      if (await step()) return;
      failures = 0;
    } catch (error) {
      if (error instanceof Permanent) throw error;
      console.error(`waiting for the database: ${error.message}`);
      await sleep(Math.min(100 * 2 ** failures++, lease * 333, 5000) * (0.5 + Math.random() / 2));
    }
  }
}

// Ends a run. A refusal (class JQ) is an answer: the run was over, its outcome is dropped.
const end = (job, verb, call, ...values) =>
  repeat(async () => {
    try {
      const text = `select job_queue.${call}`;
      await pool.query({ text, values: [job.id, job.claim_id, ...values], query_timeout: 15000 });
      log(job, verb);
    } catch (error) {
      if (/^(22|54)/.test(error.code)) throw new Permanent(`cannot be stored: ${error.message}`);
      if (!/^JQ/.test(error.code)) throw error;
      log(job, `not ${verb}: ${error.message}`);
    }
    return true;
  });

async function run(job, signal) {
  let completed = false;
  const completeWith = async (write) => {
    const client = await pool.connect();
    try {
      await client.query('begin');
      const values = [job.id, job.claim_id, JSON.stringify(await write(client))];
      await client.query('select job_queue.complete_job($1, $2, $3)', values);
      await client.query('commit');
      completed = true;
    } finally {
      client.release(!completed); // true: closes the connection, and so rolls back
    }
  };
  try {
    const result = await handlers[job.job_type](job, { signal, completeWith });
    if (completed) log(job, 'completed');
    else await end(job, 'completed', 'complete_job($1, $2, $3)', JSON.stringify(result));
  } catch (error) {
    const permanent = error instanceof Permanent;
    if (stopping && signal.aborted && !permanent)
      return end(job, 'released', 'release_job($1, $2)');
    const text = String(error?.message ?? error).replaceAll('\0', '\uFFFD');
    await end(job, `failed (${text.split('\n', 1)})`, 'fail_job($1, $2, $3, $4)', text, !permanent);
  }
}

function start(job) {
  log(job, `claimed (${job.job_type}, attempt ${job.attempt})`);
  const controller = new AbortController();
  const done = run(job, controller.signal).catch(console.error);
  running.set(job.claim_id, { job, controller, done });
  done.then(() => running.delete(job.claim_id) && wake());
}

async function claim() {
  if (stopping) return true;
  alarm = new AbortController();
  const room = concurrency - running.size;
  const text = `select id, claim_id, job_type, attempt, payload from job_queue.claim_jobs(
    $1, p_worker => $2, p_job_types => $3, p_lease => make_interval(secs => $4))`;
  const values = [room, `${os.hostname()}:${process.pid}`, Object.keys(handlers), lease];
  const { rows } = room > 0 ? await claims.query(text, values) : { rows: [] };
  rows.forEach(start);
  const idle = rows.length < room;
  if (idle !== listens) {
    const call = `select job_queue.${idle ? 'start' : 'stop'}_listening() as listens`;
    listens = (await claims.query(call)).rows[0].listens === true;
    if (listens) return; // to claim once more: a job may have come in between
  }
  // A notification ends this early, and so does the end of a run. What counts is to look again.
  await sleep(poll * 1000, null, { signal: alarm.signal }).catch(ignore);
}

async function beat() {
  const text = 'select claim_id, held, cancel_requested from job_queue.heartbeat($1)';
  const { rows } = running.size ? await heart.query(text, [[...running.keys()]]) : { rows: [] };
  for (const { claim_id, held, cancel_requested } of rows) {
    const { controller } = running.get(claim_id) ?? {};
    if (!held) controller?.abort(new Error('the claim was lost'));
    if (cancel_requested) controller?.abort(new Error('cancelled'));
  }
  await sleep((lease * 1000) / 3);
}

async function drain() {
  const all = (s, f) => Promise.race([sleep(s * 1000), Promise.all([...running.values()].map(f))]);
  await all(grace, ({ done }) => done);
  running.forEach(({ controller }) => controller.abort(new Error('the worker stops')));
  await all(1, ({ done }) => done);
  await all(1, ({ job }) => end(job, 'released', 'release_job($1, $2)')); // if the handler is deaf
}

for (const name of ['SIGTERM', 'SIGINT']) process.once(name, () => ((stopping = true), wake()));
repeat(beat);
await repeat(claim);
await drain();
process.exit();
