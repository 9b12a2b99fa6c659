/* Calls about several jobs: do they ever wait for each other in a circle?
 *
 * Two jobs run, under claims whose order is the opposite of the jobs': claim 0 holds job 1, and
 * claim 1 job 0. Each Session makes one call, of any kind, and ends: a session that cannot end is
 * in a deadlock, which Spin reports as an invalid end state. Two sessions may name one claim, as
 * a worker does that was cut off and calls again while the server is still at its first call.
 *
 * Only the rows' locks are here, not what becomes of the jobs; for that see runs.pml.
 */

#ifndef SESSIONS
#define SESSIONS 3
#endif

bool claim[2] = true;           /* whether the row is there */
byte claim_lock[2];             /* which session has locked it; 0: none */
byte job_lock[2];

#define ME (_pid + 1)
#define JOB_OF(c) job_lock[1 - (c)]

/* To wait for a lock. A claim that is gone once the wait is over is left out of the call. */
inline lock_claim(c) {
  if
  :: atomic { claim[c] && (claim_lock[c] == 0 || claim_lock[c] == ME) -> claim_lock[c] = ME }
  :: !claim[c]
  fi
}
inline lock_job(lock) { atomic { lock == 0 || lock == ME -> lock = ME } }
inline lock_job_of(c) {
  if
  :: claim_lock[c] == ME -> lock_job(JOB_OF(c))
  :: claim_lock[c] != ME
  fi
}

/* To take a lock or pass the row over: for update skip locked. */
inline try_claim(c) {
  atomic { if :: claim[c] && claim_lock[c] == 0 -> claim_lock[c] = ME :: else fi }
}
inline try_job(lock) { atomic { if :: lock == 0 -> lock = ME :: else fi } }
inline try_job_of(c) {
  atomic {
    if
    :: claim_lock[c] == ME && JOB_OF(c) == 0 -> JOB_OF(c) = ME; found[c] = true
    :: else
    fi }
}

inline let_go(lock) { if :: lock == ME -> lock = 0 :: else fi }
inline done() {
  let_go(claim_lock[0]); let_go(claim_lock[1]);
  let_go(job_lock[0]); let_go(job_lock[1])
}
inline end_run(c) {
  if
  :: found[c] ->
     assert(claim[c] && claim_lock[c] == ME && JOB_OF(c) == ME);        /* it ends once */
     claim[c] = false
  :: else
  fi
}
#define ROLLBACK atomic { true -> done() }

active [SESSIONS] proctype Session() {
  byte c;                       /* the claims that the call names: c and d, maybe the same */
  byte d;
  bool found[2];

  if :: c = 0; d = 0 :: c = 1; d = 1 :: c = 0; d = 1 :: c = 1; d = 0 fi;
  if
  /* ---- complete_job, complete_jobs, fail_jobs, release_jobs: end_runs ---- */
  :: true ->
#ifndef BROKEN_END_RUNS_IN_THE_ORDER_GIVEN
     atomic { if :: c > d -> c = 0; d = 1 :: else fi };         /* order by claim_id */
#endif
     lock_claim(c); lock_claim(d);                              /* held */
     lock_job_of(c); lock_job_of(d);                            /* decided */
     atomic { found[0] = claim_lock[0] == ME; found[1] = claim_lock[1] == ME };
     if
     :: atomic { end_run(0); end_run(1); done() }
     :: ROLLBACK
     fi

#ifdef BROKEN_JOB_BEFORE_CLAIM
  /* ---- a verb that ends one run, and locks the job first ---- */
  :: true ->
     lock_job(JOB_OF(c));
     lock_claim(c);
     atomic { done() }
#endif

  /* ---- reclaim_expired_claims, time_out_jobs ---- */
  :: true ->
     try_claim(0); try_job_of(0);       /* for update skip locked; a claim whose job is skipped */
     try_claim(1); try_job_of(1);       /* stays locked */
     if
     :: atomic { end_run(0); end_run(1); done() }
     :: ROLLBACK
     fi

  /* ---- heartbeat ---- */
  :: true ->
#ifdef BROKEN_HEARTBEAT_WAITS
     lock_claim(c); lock_claim(d);      /* in the order of its own list */
#else
     try_claim(0); try_claim(1);
#endif
     atomic { done() }

  /* ---- cancel_job ---- */
  :: true ->
     lock_job(job_lock[c]);
     atomic { done() }

  /* ---- cancel_jobs: lock_unended_jobs ---- */
  :: true ->
#ifdef BROKEN_CANCEL_JOBS_WAITS
     lock_job(job_lock[0]); lock_job(job_lock[1]);
#else
     try_job(job_lock[0]); try_job(job_lock[1]);
#endif
     atomic { done() }
  fi
}
