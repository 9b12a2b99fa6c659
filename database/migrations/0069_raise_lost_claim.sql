-- depends: 0068_report_progress

-- Changes nothing: says why a worker is refused.

create function job_queue.raise_lost_claim(
  p_job_id uuid,
  p_claim_id bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status text := job_queue.status_of(p_job_id);
begin
  if v_status <> 'running' then
    raise exception using
      errcode = 'JQ003',
      message = format('job %s is %s, not running', p_job_id, v_status),
      hint = 'This run of it is over: discard its result. get_job shows the outcome.';
  else
    raise exception using
      errcode = 'JQ004',
      message = format(
        'claim %s does not hold job %s', coalesce(p_claim_id::text, 'null'), p_job_id),
      hint = 'The job runs under another claim: stop, and discard the result. A worker passes the '
             'claim_id that claim_next_job gave it.';
  end if;
end
$$;

comment on function job_queue.raise_lost_claim(uuid, bigint) is
  'Raises the error of a call under a claim that does not hold the job. Private to this schema. '
  'Errors: JQ002 no such job, JQ003 it is not running, JQ004 another claim holds it.';

revoke execute on function job_queue.raise_lost_claim(uuid, bigint) from public;
