#!/usr/bin/env bash
# A worker in ten lines, for commands that take less than a minute and print JSON:
# DATABASE_URL=postgresql://… ./ten-lines.sh TYPE COMMAND [ARGUMENT…]
type=$1 && shift
query() { psql -XwqAt -F ' ' -v type="$type" -v id="$id" -v claim="$claim" -v text="$text" "$DATABASE_URL"; }
while true; do
  read -r id claim payload < <(query <<< "select id, claim_id, payload
    from job_queue.claim_next_job(p_job_types => array[:'type'], p_lease => '1 minute')") || { sleep 2; continue; }
  if text=$(timeout -k 5 50 "$@" <<< "$payload" 2>&1); then verb=complete; else verb=fail; fi
  query <<< "select job_queue.${verb}_job(:'id', :claim, :'text')"
done
