delete from job_queue.api_keys;
drop trigger api_keys_have_a_clock on job_queue.api_keys;
drop function job_queue.start_key_clock();
