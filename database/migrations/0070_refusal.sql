-- depends: 0069_raise_lost_claim

-- Changes nothing: which error raise_lost_claim would raise, for the verbs that end many runs.

create function job_queue.refusal(
  p_job_id uuid
)
returns text
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select coalesce(
    (select case job.status when 'running' then 'JQ004' else 'JQ003' end
       from job_queue.jobs as job
      where job.id = p_job_id),
    'JQ002')
$$;

comment on function job_queue.refusal(uuid) is
  'The SQLSTATE for a call under a claim that does not hold the job: JQ002 no such job, JQ003 it '
  'is not running, JQ004 another claim holds it. Private to this schema.';

revoke execute on function job_queue.refusal(uuid) from public;
