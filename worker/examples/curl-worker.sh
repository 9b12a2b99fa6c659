#!/usr/bin/env bash
# A worker in bash and curl: API_URL=http://localhost:8000 ./curl-worker.sh TYPE COMMAND [ARGUMENT…]
#
# The command gets the job on standard input, as POST /claims answers with it, and JOB_ID in its
# environment. What it prints is the result: JSON, or nothing. An exit status other than 0 fails the
# job, with the end of what was written to standard error. When the job is cancelled, its claim is
# lost, or the worker is told to stop, the command gets SIGTERM and, five seconds later, SIGKILL.
if (($# < 2)) || [[ $1 == *[!A-Za-z0-9_.:-]* ]]; then
  sed -n 's/^# A worker.*: /usage: /p' "$0" >&2
  exit 2
fi
api=${API_URL:-http://localhost:8000} type=$1 lease=${WORKER_LEASE:-30} && shift
dir=$(mktemp -d)
[[ -z $API_KEY ]] || echo "Authorization: Bearer $API_KEY" > "$dir/headers" # not for ps to show
echo 'Content-Type: application/json' >> "$dir/headers"
trap 'stopping=yes; [[ -z $child ]] || kill $child' TERM INT
exec 9<> <(:) # to wait for a time without a process that sleeps

post() { # Send standard input; print the answer and, in a line of its own, the status.
  exec curl -sm 90 -H "@$dir/headers" --data-binary @- -w '\n%{http_code}\n' "${@:2}" "$api$1"
}

end() { # Until there is an answer: done or refused (409), or, returning 1, that it is invalid.
  until
    status=$(post "/jobs/$id/$1" < "$dir/body" | tail -n 1)
    [[ $status =~ ^(2..|4..)$ && $status != 429 || $stopping ]]
  do read -rt 1 -u 9; done
  [[ $status != 4[12][235] ]]
}

until [[ $stopping ]]; do
  post /claims -H 'Prefer: wait=20' > "$dir/job" \
    <<< "{\"worker\": \"$HOSTNAME:$$\", \"job_types\": [\"$type\"], \"lease_seconds\": $lease}" &
  child=$!
  wait $child # which a signal ends, and then the API gives the job to another
  child=''
  { read -r job; status=$(tail -n 1); } < "$dir/job"
  if [[ $status != 200 ]]; then
    [[ $stopping ]] || read -rt 1 -u 9 # no API, or it refuses: ask again a little later
    continue
  fi
  [[ $job =~ ^\[\{\"id\"\ *:\ *\"([^\"]+)\",\ *\"claim_id\"\ *:\ *([0-9]+) ]] || continue # none
  id=${BASH_REMATCH[1]} claim=${BASH_REMATCH[2]} job=${job#[} job=${job%]}

  JOB_ID=$id timeout -k 5 0 "$@" <<< "$job" > "$dir/out" 2> "$dir/err" &
  child=$!
  [[ -z $stopping ]] || kill $child
  while ! read -rt $((lease / 3)) -u 9 && kill -0 $child; do
    kill -0 $$ || kill $child # the worker was killed
    beat=$(post /claims/heartbeat <<< "{\"claim_ids\": [$claim]}")
    [[ ! $beat =~ (\"held\"\ *:\ *false|_requested\"\ *:\ *true) ]] || kill $child
  done 2> /dev/null &
  heart=$!
  disown
  while kill -0 $child 2> /dev/null; do wait $child; done # a signal ends a wait
  wait $child
  code=$? child=''
  kill $heart 2> /dev/null

  error=$(tail -c 2000 "$dir/err" | LC_ALL=C tr -c '[:print:]' ' ' | sed 's/[\\"]/\\&/g')
  fail="{\"error\": \"${error:-exit status $code}\", \"claim_id\": $claim}"
  if ((code == 0)); then
    [[ -s $dir/out ]] || echo null > "$dir/out"
    { printf '{"result": ' && cat "$dir/out" && echo ", \"claim_id\": $claim}"; } > "$dir/body"
    end complete || {
      echo "{\"error\": \"no JSON\", \"retryable\": false, \"claim_id\": $claim}" > "$dir/body"
      end fail
    }
  elif [[ $stopping ]]; then
    echo "{\"claim_id\": $claim}" > "$dir/body" && end release
  else
    echo "$fail" > "$dir/body" && end fail
  fi
done
rm -r "$dir"
