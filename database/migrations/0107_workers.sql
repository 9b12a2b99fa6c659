-- depends: 0106_queue_statistics

-- For people: who works, and on what.

create view job_queue.workers as
  select
    coalesce(seen.worker, holder.worker) as worker,
    seen.queues,
    seen.job_types,
    seen.seen_at,
    holder.last_beat_at,
    coalesce(holder.claims, 0) as claims,
    coalesce(holder.expired_claims, 0) as expired_claims,
    holder.oldest_claim_at,
    holder.job_ids
    from job_queue.worker_sightings as seen
    full join (
      select
        claim.worker,
        count(*) as claims,
        count(*) filter (where claim.expires_at <= clock_timestamp()) as expired_claims,
        max(claim.expires_at - claim.lease) as last_beat_at,
        min(claim.claimed_at) as oldest_claim_at,
        array_agg(claim.job_id order by claim.claim_id) as job_ids
        from job_queue.claims as claim
       group by claim.worker
    ) as holder on holder.worker = seen.worker;

comment on view job_queue.workers is
  'For people: who has asked for work within the last day or runs a job, with the claims.';
comment on column job_queue.workers.worker is
  'As claim_next_job was told. Null: those that said nothing, together.';
comment on column job_queue.workers.queues is
  'The queues that it asked for. Null: all.';
comment on column job_queue.workers.job_types is
  'The types that it asked for. Null: all.';
comment on column job_queue.workers.seen_at is
  'When it last asked in vain, give or take five seconds. A busy worker is noted now and then.';
comment on column job_queue.workers.last_beat_at is
  'When it last renewed a lease, or made a claim.';
comment on column job_queue.workers.claims is
  'How many jobs it runs.';
comment on column job_queue.workers.expired_claims is
  'How many of these claims have run out and will be reclaimed.';
comment on column job_queue.workers.oldest_claim_at is
  'When it claimed the job that it has run for longest.';
comment on column job_queue.workers.job_ids is
  'The jobs that it runs, the one claimed first before the others.';
