/* The life of a job: claim, lease, heartbeat, reclaim, complete, fail, cancel, retry.
 *
 * A Session is a connection that makes one call after another, each call one transaction. Who is
 * at its other end is left out: any session may make any call, and may end a run under any claim
 * number that was ever given out, as often as it likes. That is all that dead, stopped, resumed,
 * cut off and repeating workers can amount to, so there is no worker here, and no lost answer.
 *
 * What Postgres does is written thus:
 *   - an atomic block happens at once; between two of them the other sessions may act
 *   - what a transaction writes is seen when it commits, so it is written in that step
 *   - the first step of a call reads a snapshot; LOCK waits for the lock of a row, and what follows
 *     it in the same block reads the row as it is then, as READ COMMITTED does
 *   - locks are held to the end, and until its commit a call may roll back, whatever the reason
 *
 * Each BROKEN_... takes away one thing that the functions do; the check must then fail.
 */

#ifndef SESSIONS
#define SESSIONS 2
#endif
#ifndef JOBS
#define JOBS 1                  /* 1 or 2 */
#endif
#ifndef RETRIES
#define RETRIES 1               /* how often retry_job may succeed for each job */
#endif
#define MAX_ATTEMPTS 2
#define MAX_LOSSES 2
/* Each claim but the last of a round ends in a failed attempt or a loss. */
#define MAX_CLAIMS ((RETRIES + 1) * (MAX_ATTEMPTS + MAX_LOSSES - 1))

mtype = { queued, running, succeeded, failed, cancelled };      /* statuses */
mtype = { complete, fail };                                     /* verbs */

typedef Job {
  mtype status = queued;        /* the row in jobs */
  byte attempts;
  byte losses;
  bool cancel_requested;
  byte lock;                    /* which session has locked the row; 0: none */

  byte claim;                   /* the row in claims: its claim_id; 0: there is none */
  bool due;                     /* its expires_at has passed */
  byte claim_lock;

  byte claims;                  /* to count with: claim numbers given out so far, */
  byte retries;
  bool renewed;                 /* and for LIVENESS */
  bool lost;
}
Job job[JOBS];

#define THE job[j]
#define ME (_pid + 1)
#define LOCK(row_lock) row_lock == 0 -> row_lock = ME
#define RETRYABLE(s) ((s) == failed || (s) == cancelled)
#define ENDED(s) ((s) == succeeded || RETRYABLE(s))

/* Which jobs a call's snapshot finds. */
#define WAITS(i) (job[i].status == queued)
#define RUNS(i) (job[i].claim != 0 && MAY_RENEW(i))
#define RAN(i) (job[i].claims > 0 && MAY_BE_NAMED(i))
#define IS_DUE(i) (job[i].claim != 0 && job[i].due)
#define TO_CANCEL(i) (WAITS(i) || (job[i].status == running && !job[i].cancel_requested))
#define TO_RETRY(i) (RETRYABLE(job[i].status) && job[i].retries < RETRIES)
#if JOBS == 1
#define FIND(condition) condition(0)
#define ALL_ENDED ENDED(job[0].status)
#else
#define FIND(condition) if :: condition(0) -> j = 0 :: condition(1) -> j = 1 fi
#define ALL_ENDED (ENDED(job[0].status) && ENDED(job[1].status))
#endif

/* Liveness: every job ends, even if workers die. That holds only while no call rolls back for ever,
 * a handler returns some day (it renews its lease once), and somebody calls: Spin's weak fairness
 * lets no session rest for ever. A claim that is lost is one whose worker never calls again:
 * nothing but reclaim can end it. */
#ifdef LIVENESS
byte rollbacks = 1;
#define MAY_RENEW(i) (!job[i].lost && !job[i].renewed)
#define MAY_BE_NAMED(i) (job[i].claim != 0 && !job[i].lost)
#define NAME_A_CLAIM n = THE.claim
#define MAY_ROLL_BACK rollbacks > 0 -> rollbacks--
#define FATE THE.renewed = false; if :: THE.lost = false :: THE.lost = true fi
#define RENEWED THE.renewed = true
ltl every_job_ends { <> [] ALL_ENDED }
#else
#define MAY_RENEW(i) true
#define MAY_BE_NAMED(i) true
#define NAME_A_CLAIM n = 1; do :: n < THE.claims -> n++ :: break od
#define MAY_ROLL_BACK skip
#define FATE skip
#define RENEWED skip
#endif

/* What must hold whenever a transaction has committed. */
inline check() {
  assert((THE.status == running) == (THE.claim != 0));
  assert(THE.status != queued || !THE.cancel_requested);        /* no cancel is forgotten */
  assert(THE.attempts <= MAX_ATTEMPTS && THE.losses <= MAX_LOSSES);
  assert(THE.claims <= MAX_CLAIMS)
}

/* The end of a transaction: let go of the locks and forget the call. */
inline done() {
  if :: THE.lock == ME -> THE.lock = 0 :: else fi;
  if :: THE.claim_lock == ME -> THE.claim_lock = 0 :: else fi;
  j = 0; n = 0; verb = 0; status = 0; cancel_requested = false
}

#define COMMITTED check(); done()
#define ROLLBACK atomic { MAY_ROLL_BACK; done() }

active [SESSIONS] proctype Session() {
  byte j;                       /* the job that the call is about */
  byte n;                       /* the claim that it names */
  mtype verb;
  mtype status;                 /* what it has read of the job */
  bool cancel_requested;

end:
  do

  /* ---- claim_jobs ---- */
  :: atomic { FIND(WAITS) };                                    /* pick_front: front */
     if
#ifdef BROKEN_CLAIM_WITHOUT_RECHECK
     :: atomic { LOCK(THE.lock) };                              /* waits, and looks no more */
#else
     :: atomic { THE.lock != 0 || !WAITS(j) -> done() }         /* for update skip locked */
     :: atomic { THE.lock == 0 && WAITS(j) -> THE.lock = ME };  /* pick_front: locked */
#endif
        if
        :: atomic {
             assert(THE.claim == 0);                            /* at most one live claim */
             THE.status = running;
             THE.attempts++;
             THE.claims++;
             THE.claim = THE.claims;                            /* nextval */
             THE.due = false;
             FATE;
             COMMITTED }
        :: ROLLBACK
        fi
     fi

  /* ---- heartbeat ---- */
  :: atomic { FIND(RUNS); n = THE.claim };
     if
     :: atomic { THE.claim_lock != 0 || THE.claim != n -> done() }      /* skip locked */
     :: atomic { THE.claim_lock == 0 && THE.claim == n -> THE.claim_lock = ME };
        if
        :: atomic { THE.due = false; RENEWED; COMMITTED }
        :: ROLLBACK
        fi
     fi

  /* ---- complete_job, fail_job: end_runs ---- */
  :: atomic { FIND(RAN); NAME_A_CLAIM; if :: verb = complete :: verb = fail fi };
     if
#ifdef BROKEN_FENCE
     :: atomic { THE.claim == 0 -> done() }
     :: atomic { THE.claim != 0 && THE.claim_lock == 0 -> THE.claim_lock = ME };
#else
     :: atomic { THE.claim != n -> done() }                     /* refused: the claim has gone */
     :: atomic { THE.claim == n && THE.claim_lock == 0 -> THE.claim_lock = ME };  /* held */
#endif
        atomic { cancel_requested = THE.cancel_requested };
        atomic { LOCK(THE.lock);                                /* decided */
#ifndef BROKEN_DECISION_BEFORE_THE_LOCK
          cancel_requested = THE.cancel_requested
#endif
        };
        if
        :: atomic {
             assert(THE.claim == n);                            /* not under a stale claim */
             assert(THE.status == running);
             if                                                 /* status_after */
             :: verb == complete -> THE.status = succeeded
             :: verb == fail && cancel_requested -> THE.status = cancelled
             :: verb == fail && !cancel_requested ->
                if
                :: THE.attempts < MAX_ATTEMPTS -> THE.status = queued
                :: else -> THE.status = failed
                fi
             fi;
             THE.claim = 0; THE.due = false;
             COMMITTED }
        :: ROLLBACK
        fi
     fi

#ifndef BROKEN_NO_RECLAIM
  /* ---- reclaim_expired_claims: end_runs ---- */
  :: atomic { FIND(IS_DUE); n = THE.claim };
     if
#ifdef BROKEN_RECLAIM_WITHOUT_LOCK
     :: atomic { THE.claim != n -> done() }
     :: atomic { THE.claim == n && THE.claim_lock == 0 -> THE.claim_lock = ME };
        atomic { LOCK(THE.lock) };
#else
     :: atomic { THE.claim_lock != 0 || THE.claim != n || !THE.due -> done() }  /* skip locked */
     :: atomic { THE.claim_lock == 0 && THE.claim == n && THE.due -> THE.claim_lock = ME };
#endif
        if
#ifndef BROKEN_RECLAIM_WITHOUT_LOCK
        :: atomic { THE.lock != 0 -> done() }                   /* skip locked: the job */
        :: atomic { THE.lock == 0 -> THE.lock = ME };
#else
        :: true ->
#endif
           if
           :: atomic {
                assert(THE.claim == n && THE.due);              /* no lease that was renewed */
                assert(THE.status == running);
                if                                              /* status_after */
                :: THE.cancel_requested -> THE.status = cancelled
                :: !THE.cancel_requested ->
                   if
                   :: THE.losses + 1 < MAX_LOSSES -> THE.status = queued
                   :: else -> THE.status = failed
                   fi
                fi;
                THE.attempts--;
#ifndef BROKEN_LOSS_NOT_COUNTED
                THE.losses++;
#endif
                THE.claim = 0; THE.due = false;
                COMMITTED }
           :: ROLLBACK
           fi
        fi
     fi
#endif

  /* ---- cancel_job ---- */
  :: atomic { FIND(TO_CANCEL); status = THE.status };
     atomic { LOCK(THE.lock);                                   /* for no key update */
#ifndef BROKEN_CANCEL_TRUSTS_ITS_SNAPSHOT
       status = THE.status
#endif
     };
     if
     :: atomic { ENDED(status) || (status == running && THE.cancel_requested) -> done() }
     :: atomic { status == running && !THE.cancel_requested ->
          assert(THE.status == running);                        /* what has ended stays so */
          THE.cancel_requested = true;
          COMMITTED }
     :: atomic { status == queued ->
          assert(THE.status == queued);
          THE.status = cancelled;
          COMMITTED }
     :: ROLLBACK
     fi

  /* ---- retry_job; of its unique key see keys.pml ---- */
  :: atomic { FIND(TO_RETRY) };
     atomic { LOCK(THE.lock) };                                 /* for update */
     if
#ifndef BROKEN_RETRY_WITHOUT_RECHECK
     :: atomic { !TO_RETRY(j) -> done() }                       /* JQ006 */
     :: atomic { TO_RETRY(j) ->
#else
     :: atomic {
#endif
          assert(RETRYABLE(THE.status));
          THE.status = queued;
          THE.attempts = 0; THE.losses = 0; THE.cancel_requested = false;
          THE.retries++;
          COMMITTED }
     :: ROLLBACK
     fi
  od
}

/* A lease may run out at any time. */
#define NOT_YET_DUE(i) (job[i].claim != 0 && !job[i].due)
active proctype Clock() {
  byte j;
end:
  do
  :: atomic { FIND(NOT_YET_DUE); THE.due = true; j = 0 }
#ifdef LIVENESS
  :: else                       /* time goes on: Spin sees no fault in a fair run that just stops */
#endif
  od
}
