// A client and a worker in TypeScript, with the types that openapi-typescript makes of the API.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type NewJob = components["schemas"]["NewJob"];

const { GET, POST } = createClient<paths>({
  baseUrl: process.env.API_URL,
  headers: { Authorization: `Bearer ${process.env.API_KEY}` },
});

const body: NewJob = { job_type: "add", payload: { a: 1, b: 2 }, queue: "sums", max_attempts: 2 };
const created = await POST("/jobs", { body, params: { header: { "Idempotency-Key": "one" } } });
const again = await POST("/jobs", { body, params: { header: { "Idempotency-Key": "one" } } });
assert(created.data && again.data);
assert.equal(created.data.status, "queued");
assert.equal(again.data.id, created.data.id);
assert.equal(again.response.headers.get("Idempotent-Replayed"), "true");

const claims = await POST("/claims", {
  body: { worker: "typescript", job_types: ["add"], lease_seconds: 30 },
  params: { header: { Prefer: "wait=10" } },
});
const job = claims.data?.[0];
assert(job);
const path = { job_id: job.id };
const { a, b } = job.payload as { a: number; b: number };
await POST("/jobs/{job_id}/progress", {
  params: { path },
  body: { claim_id: job.claim_id, progress: "half" },
});
const running = await GET("/jobs/{job_id}", { params: { path, query: { view: "full" } } });
assert.equal(running.data?.progress, "half");
const completion = { claim_id: job.claim_id, result: { sum: a + b } };
const completed = await POST("/jobs/{job_id}/complete", { params: { path }, body: completion });
assert.equal(completed.response.status, 204);

const late = await POST("/jobs/{job_id}/complete", { params: { path }, body: completion });
assert.equal(late.error?.type, "urn:async-job-orchestrator:problem:not-running");

const done = await GET("/jobs/{job_id}", {
  params: { path, header: { Prefer: "wait=10" } },
});
assert.deepEqual(done.data?.result, { sum: 3 });
const listed = await GET("/jobs", { params: { query: { status: ["succeeded"], limit: 5 } } });
assert.deepEqual(listed.data?.map((each) => each.id), [job.id]);
console.log("done");
