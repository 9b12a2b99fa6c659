-- depends: 0084_set_queue

-- Changes no job: gives the running jobs of a queue the slots that its limits count by.
--
-- Claims that were made before the limit was set have none. Theirs have numbers beyond any limit,
-- so that none of the limit's own is in use twice, and count all the same. A claim that another
-- transaction is making just then is not counted.

create function job_queue.give_slots(
  p_queue text
)
returns void
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with unslotted as materialized (
    select claim.claim_id, job.concurrency_key,
           queue.concurrency_limit is not null as takes_queue_slot,
           queue.key_concurrency_limit is not null and job.concurrency_key is not null
             as takes_key_slot
      from job_queue.queues as queue
      join job_queue.jobs as job on job.queue = queue.queue and job.status = 'running'
      join job_queue.claims as claim on claim.job_id = job.id
     where queue.queue = p_queue
     order by claim.claim_id
       for update of claim
  )
  update job_queue.claims as claim
     set queue = p_queue,
         concurrency_key = coalesce(claim.concurrency_key, case
           when unslotted.takes_key_slot then unslotted.concurrency_key end),
         queue_slot = coalesce(claim.queue_slot, case
           when unslotted.takes_queue_slot then 10001 + claim.claim_id % 2000000000 end),
         key_slot = coalesce(claim.key_slot, case
           when unslotted.takes_key_slot then 10001 + claim.claim_id % 2000000000 end)
    from unslotted
   where claim.claim_id = unslotted.claim_id
     and (unslotted.takes_queue_slot or unslotted.takes_key_slot)
$$;

comment on function job_queue.give_slots(text) is
  'Makes the running jobs of the queue count for its limits. Private to this schema.';

revoke execute on function job_queue.give_slots(text) from public;
