-- running -> queued or cancelled

create or replace function job_queue.release_job(
  p_job_id uuid,
  p_claim_id bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform job_queue.hand_back(p_job_id, p_claim_id, 'release', null);
end
$$;

comment on function job_queue.release_job(uuid, bigint) is
  'Hands a job back unfinished, to the place in the queue that it had, and the attempt does not '
  'count: for a worker that shuts down. If cancel_job asked for it, it is cancelled. Errors, each '
  'changing nothing: JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.release_job(uuid, bigint) from public;
