-- The queue, in the order of a job's life.
--
--   enqueue_job                 -> queued      a client asks for work
--                               -> blocked     that depends on other work (blocked -> queued)
--   claim_next_job      queued  -> running     a worker takes the next job
--   start_listening                            or sleeps until there is one (stop_listening)
--   complete_job        running -> succeeded   that worker reports the result
--   fail_job            running -> failed      or the error, and it may be tried again (-> queued)
--   snooze_job          running -> queued      or puts the job off
--   release_job         running -> queued      or hands it back unfinished
--   heartbeat                                  that worker is still at it
--   reclaim_expired_claims  running -> queued  its lease ran out: it must have died
--   time_out_jobs       running -> failed      its job was out of time
--   cancel_job          queued  -> cancelled   a client has thought better of it
--   retry_job           failed  -> queued      or wants it tried again
--   get_job, list_jobs, job_history,           anybody reads
--   explain_job, list_dead_jobs
--   ended_jobs, settled_events, list_events    or waits, or follows what happens
--   set_queue, set_schedule, ...               an operator sets a policy
--   run_maintenance                            any worker does what has to be done
--
-- enqueue_jobs, claim_jobs, complete_jobs, fail_jobs, release_jobs, cancel_jobs and retry_jobs do
-- the same for many.
--
-- A claim is the right of one worker to run one job: a row in claims while the job runs. Its
-- number, claim_id, comes from a sequence and is never used twice. It is the fence: the verbs that
-- end a run must name it, and a worker whose claim has gone is refused, however late it comes. A
-- claim has a lease, which heartbeat renews. If it runs out, claim_next_job takes the job from the
-- worker, which must have died, and lets another have it.
--
-- job_transitions lists these changes of status, a trigger refuses all others, and job_events keeps
-- each of them.
--
-- Every verb is one function, one guarded change, one transaction (or a part of the caller's).
-- Wrong use raises an SQLSTATE of class JQ with a hint, and changes nothing; database/README.md
-- lists the codes.
--
-- The functions run with their owner's rights, so whoever may execute them needs no right on a
-- table: grant_roles, at the end, says who may.

create schema job_queue;

comment on schema job_queue is
  'A job queue that is just Postgres. Its functions are its interface, save those whose comment '
  'calls them private: enqueue_job, claim_next_job, heartbeat, complete_job, fail_job, cancel_job '
  'and so on. Tables may be read, never written by hand.';
