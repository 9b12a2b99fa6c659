-- depends: 0087_resume_queue

-- Changes nothing: reads one field of a cron expression.
--
-- A field is a list, with commas, of `*`, `a`, `a-b`, `*/n`, `a-b/n` and `a/n`, which begins with a
-- and goes on to the maximum. Everything but ASCII is refused before it could be taken for a digit
-- or a letter, and numbers are cut off long before they overflow.

create function job_queue.cron_field(
  p_field text,
  p_name text,
  p_min integer,
  p_max integer,
  p_names text[]
)
returns integer[]
language plpgsql
immutable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_values integer[] := '{}'::integer[];
  v_part text;
  v_match text[];
  v_from integer;
  v_to integer;
  v_step integer;
begin
  foreach v_part in array coalesce(string_to_array(nullif(p_field, ''), ','), '{""}') loop
    v_match := regexp_match(
      upper(v_part collate "C"),
      '^(?:(\*)|([0-9]{1,9}|[A-Z]{3})(?:-([0-9]{1,9}|[A-Z]{3}))?)(?:/([0-9]{1,9}))?$');
    v_from := case
      when v_match[1] = '*' then p_min
      when v_match[2] ~ '^[0-9]' then v_match[2]::integer
      else p_min + array_position(p_names, v_match[2]) - 1
    end;
    v_to := case
      when v_match[3] ~ '^[0-9]' then v_match[3]::integer
      when v_match[3] is not null then p_min + array_position(p_names, v_match[3]) - 1
      when v_match[1] = '*' or v_match[4] is not null then p_max
      else v_from
    end;
    v_step := coalesce(v_match[4]::integer, 1);
    if (p_min <= v_from and v_from <= v_to and v_to <= p_max and v_step > 0) is not true then
      perform job_queue.raise_invalid_argument('cron', left(p_field, 100), format(
        'Write the %s as * or numbers from %s to %s, such as %2$s, %2$s-%3$s, %2$s,%3$s or */2.',
        p_name, p_min, p_max));
    end if;
    v_values := v_values || array(select generate_series(v_from, v_to, v_step));
  end loop;
  return array(select distinct value from unnest(v_values) as value order by value);
end
$$;

comment on function job_queue.cron_field(text, text, integer, integer, text[]) is
  'Returns the values that the field stands for, sorted. p_names: words for the values from p_min '
  'on. Errors: JQ001, with p_name in the hint. Private to this schema.';

revoke execute on function job_queue.cron_field(text, text, integer, integer, text[]) from public;
