/* Unique keys: enqueue_job, the end of a run and retry_job, for jobs with one key in one queue.
 * At most one of them may be at work, and whoever enqueues is told a job that is.
 *
 * As in runs.pml a Session makes any call at any time, each call is one transaction, and an atomic
 * block is what happens at once. New here is the unique index jobs_held_key_idx. Whoever would put
 * a key into it looks and writes at once (Postgres locks the index page), and
 *   - if another transaction is just putting the key in or taking it out, waits for its end and
 *     looks again: THE_KEY_IS_SETTLED
 *   - if a job holds the key, is refused
 * A snapshot sees neither of these, only what is committed.
 */

#ifndef SESSIONS
#define SESSIONS 3
#endif
#define JOBS 3

mtype = { queued, ended };      /* 0: no such job; queued stands for blocked and running too */
mtype = { taking, freeing };

typedef Job {
  mtype status;
  bool holds;                   /* held_key is not null, as committed */
  mtype pending;                /* what a transaction under way does to held_key */
  byte lock;                    /* which session has locked the row, or is inserting it */
}
Job job[JOBS];

#define THE job[j]
#define ME (_pid + 1)
#define ANY(condition) (condition(0) || condition(1) || condition(2))
#define FIND(condition) if :: condition(0) -> j = 0 :: condition(1) -> j = 1 \
                           :: condition(2) -> j = 2 fi

#define IS_FREE(i) (job[i].status == 0 && job[i].lock == 0)
#define IS_QUEUED(i) (job[i].status == queued)
#define HAS_ENDED(i) (job[i].status == ended)
#define HOLDS(i) (job[i].holds)
#define HOLDS_FOR_GOOD(i) (i != j && job[i].holds && job[i].pending == 0)
#define IN_THE_BALANCE(i) (i != j && job[i].pending != 0)

#define THE_KEY_IS_HELD ANY(HOLDS_FOR_GOOD)
#define THE_KEY_IS_SETTLED (THE_KEY_IS_HELD || !ANY(IN_THE_BALANCE))

/* What must hold whenever a transaction has committed. */
inline check() {
  assert((job[0].status == queued) + (job[1].status == queued) + (job[2].status == queued) <= 1);
  assert(THE.holds == (THE.status == queued))
}

inline done() {
  if :: THE.lock == ME -> THE.lock = 0; THE.pending = 0 :: else fi;
  j = 0; is_free = false
}

#define COMMITTED THE.pending = 0; check(); done()
#define ROLLBACK atomic { true -> done() }

active [SESSIONS] proctype Session() {
  byte j;
  bool is_free;                 /* only broken variants look before they leap */

end:
  do

  /* ---- enqueue_job ---- */
  :: atomic { FIND(IS_FREE); THE.lock = ME };
     do
#ifdef BROKEN_ENQUEUE_LOOKS_FIRST
     :: atomic { is_free = !ANY(HOLDS) };                       /* select, then a plain insert */
        if
        :: atomic { is_free -> THE.status = queued; THE.holds = true; COMMITTED; break }
        :: atomic { !is_free -> done(); break }
        fi
#else
     :: atomic { THE_KEY_IS_SETTLED ->                          /* on conflict do nothing */
          is_free = !THE_KEY_IS_HELD;
          if :: is_free -> THE.pending = taking :: else fi };
        if
        :: atomic { is_free -> THE.status = queued; THE.holds = true; COMMITTED; break }
        :: ROLLBACK; break
        :: atomic { !is_free && ANY(HOLDS) ->                   /* select ... held_key */
             done();
             FIND(HOLDS);
             assert(THE.status == queued);                      /* the answer is a job at work */
             j = 0;
             break }
        :: atomic { !is_free && !ANY(HOLDS) ->
#ifdef BROKEN_ENQUEUE_DOES_NOT_LOOP
             assert(false)                                      /* there is no job to answer with */
#else
             skip                                               /* it has ended: once more */
#endif
           }
        fi
#endif
     od

  /* ---- a run, or a cancel, that ends the job or queues it again ---- */
  :: atomic { FIND(IS_QUEUED) };
     atomic { THE.lock == 0 -> THE.lock = ME };
     if
     :: atomic { !IS_QUEUED(j) -> done() }
     :: atomic { IS_QUEUED(j) -> THE.pending = freeing };       /* held_key = null */
        if
        :: atomic { true ->
             THE.status = ended;
#ifndef BROKEN_END_KEEPS_THE_KEY
             THE.holds = false;
#endif
             COMMITTED }
        :: ROLLBACK
        fi
#ifdef BROKEN_REQUEUE_FREES_THE_KEY
     :: atomic { IS_QUEUED(j) -> THE.holds = false; COMMITTED }
#else
     :: atomic { IS_QUEUED(j) -> COMMITTED }
#endif
     fi

  /* ---- retry_job ---- */
  :: atomic { FIND(HAS_ENDED);
#ifdef BROKEN_RETRY_LOOKS_FIRST
       is_free = !ANY(HOLDS)
#endif
     };
     atomic { THE.lock == 0 -> THE.lock = ME };
     if
     :: atomic { !HAS_ENDED(j) -> done() }                      /* JQ006 */
     :: HAS_ENDED(j) ->
#if !defined(BROKEN_RETRY_LOOKS_FIRST) && !defined(BROKEN_RETRY_IGNORES_THE_KEY)
        atomic { THE_KEY_IS_SETTLED ->                          /* held_key = unique_key */
          is_free = !THE_KEY_IS_HELD;
          if :: is_free -> THE.pending = taking :: else fi };
#endif
#ifdef BROKEN_RETRY_IGNORES_THE_KEY
        atomic { is_free = true };                              /* as without the index */
#endif
        if
        :: atomic { is_free -> THE.status = queued; THE.holds = true; COMMITTED }
        :: atomic { !is_free -> done() }                        /* JQ007 */
        :: ROLLBACK
        fi
     fi
  od
}
