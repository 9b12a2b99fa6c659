#!/usr/bin/env bash
# A worker in bash and psql: DATABASE_URL=postgresql://… ./worker.sh TYPE COMMAND [ARGUMENT…]
#
# The command gets a job's payload on standard input, and JOB_ID and JOB_ATTEMPT in its environment.
# What it prints is the result: JSON, or nothing. An exit status other than 0 fails the job, with
# the end of what was written to standard error. When the job is cancelled, its claim is lost, or the
# worker is told to stop, the command gets SIGTERM and, five seconds later, SIGKILL.
if (($# < 2)) || [[ -z $DATABASE_URL ]]; then
  sed -n 's/^# A worker.*: /usage: /p' "$0" >&2
  exit 2
fi
type=$1 lease=${WORKER_LEASE:-30} poll=${POLL_SECONDS:-2} && shift
export PGCONNECT_TIMEOUT=5 PGCLIENTENCODING=UTF8
dir=$(mktemp -d)
trap 'stopping=yes; [[ -z $command ]] || kill $command' TERM INT
exec 9<> <(:) # to wait for a time without a process that sleeps

query() { # Values become part of the SQL on standard input as psql's variables, which it quotes.
  timeout 20 psql -XwqAt -F ' ' -v worker="$HOSTNAME:$$" -v type="$type" \
    -v lease="$lease" -v id="$id" -v claim="$claim" -v status="$status" "$DATABASE_URL"
}

end() { # Until there is an answer: done (00), refused (JQ) or, returning 1, that it is no JSON.
  until
    state=$(query <<< "\set result \`cat '$dir/result'\`
      \set error \`cat '$dir/error'\`
      select job_queue.$1_job(:'id', :claim $2) \g /dev/null
      \echo :SQLSTATE") && [[ $state =~ ^(00|JQ|22|54|42601) ]] || [[ $stopping ]]
  do sleep 1; done
  [[ ! $state =~ ^(22|54|42601) ]]
}

until [[ $stopping ]]; do
  read -r id claim attempt payload < <(query <<< "select id, claim_id, attempt, payload
    from job_queue.claim_next_job(:'worker', p_job_types => array[:'type'],
                                  p_lease => make_interval(secs => :lease))") ||
    { read -rt "$poll" -u 9; continue; } # no job, or no database
  JOB_ID=$id JOB_ATTEMPT=$attempt timeout -k 5 0 "$@" <<< "$payload" > "$dir/out" 2> "$dir/err" &
  command=$!
  [[ -z $stopping ]] || kill $command
  while ! read -rt $((lease / 3)) -u 9 && kill -0 $command; do
    kill -0 $$ || kill $command # the worker was killed
    [[ $(query <<< "select held and not cancel_requested
      from job_queue.heartbeat(array[:claim])") != f ]] || kill $command
  done 2> /dev/null &
  heart=$!
  disown
  while kill -0 $command 2> /dev/null; do wait $command; done # a signal ends a wait
  wait $command
  status=$? command=''
  kill $heart 2> /dev/null

  tr '\0' '\1' < "$dir/out" > "$dir/result"
  tail -c 10000 "$dir/err" | iconv -c -f UTF-8 -t UTF-8 | tr -d '\0' > "$dir/error"
  if ((status == 0)); then
    end complete ", nullif(:'result', '')::jsonb" ||
      end fail ", 'the result is not JSON', p_retryable => false"
  elif [[ $stopping ]]; then
    end release
  else
    end fail ", coalesce(nullif(:'error', ''), 'exit status ' || :'status')"
  fi
done
rm -r "$dir"
