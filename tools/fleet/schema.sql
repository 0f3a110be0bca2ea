-- The ledger of a fleet: every record once, what was set aside and why, and views over them. PostgreSQL 14 or newer.
-- May be run again over an older one; `tools/fleet/consume` does so at its start.
create schema if not exists fleet;
set search_path = fleet;
select pg_advisory_lock(5720671);  -- several consumers start at once; released by the disconnect or at the end

-- Names of boxes are unique in a fleet: they are MQTT client ids as well. A box that moves keeps its row.
create table if not exists box (
    box text primary key,
    site text not null,
    line text not null,
    heard_at timestamptz not null,   -- when the broker last had something that the box itself sent
    state text,                      -- online | offline, as the box or its will said
    state_why text,
    state_at timestamptz
);

create table if not exists epoch (
    box text not null,
    epoch text not null,
    received int8multirange not null default '{}',   -- numbers that are in `record`, or set aside under their name
    dropped int8multirange not null default '{}',    -- numbers that the box gave up, as its `drop` records say
    repeated bigint not null default 0,      -- records that came again because the box sent them again
    redelivered bigint not null default 0,   -- records that came again because the stream did
    began_at timestamptz not null,
    heard_at timestamptz not null,
    primary key (box, epoch)
);

create table if not exists record (
    box text not null,
    epoch text not null,
    seq bigint not null,
    content bigint not null,             -- 64 bits of BLAKE2b over the payload
    site text not null,
    line text not null,
    kind text not null,
    monotonic_ns bigint not null,
    time timestamptz not null,           -- the box's word
    time_quality text not null,
    journal text not null,
    run bigint,
    model text,
    model_digest text,
    config_digest text,
    part_row bigint,                     -- kinds decision and label: which part, within the journal
    revision int,
    verdict text,
    score double precision,
    data jsonb not null,
    heard_at timestamptz not null,       -- when the broker had it
    stored_at timestamptz not null default now(),
    primary key (box, epoch, seq)
);
create index if not exists record_decided on record (time) where kind = 'decision';
create index if not exists record_part on record (box, journal, part_row) where kind = 'decision';
create index if not exists record_label on record (box, journal, part_row) where kind = 'label';
create index if not exists record_heard on record using brin (heard_at);

create table if not exists set_aside (
    digest text primary key,             -- the same message again only counts
    subject text not null,
    payload bytea not null,
    reason text not null,
    box text, epoch text, seq bigint,    -- as far as it names itself
    times bigint not null default 1,
    first_at timestamptz not null,
    last_at timestamptz not null
);

-- Against which day the scores of a model on a line are held. Without a row: the first day with 1000 parts.
create table if not exists reference_day (
    site text not null,
    line text not null,
    model text not null,
    day date not null,
    primary key (site, line, model)
);

-- Hours and days are those of UTC.
-- One row a part: a later revision, or the same statement from a later epoch, replaces an earlier one.
-- A clock that runs ahead counts as now: no part comes from the future.
create or replace view part as
select box, site, line, journal, part_row, revision, verdict, score, model, model_digest, config_digest, run,
       least(time, heard_at) as at, time_quality, heard_at, data
from record r
where kind = 'decision' and not exists (
    select from record later
    where later.kind = 'decision' and later.box = r.box and later.journal = r.journal and later.part_row = r.part_row
      and (later.revision, later.heard_at, later.epoch, later.seq) > (r.revision, r.heard_at, r.epoch, r.seq));

-- What people said about parts, one row a saying and a taking back, once however many epochs tell it. Columns of `data`.
create or replace view label as
select distinct on (box, journal, number) *
from (select box, site, line, journal, part_row, (data ->> 'number')::bigint as number, data ->> 'part' as part,
             data ->> 'label' as label, (data ->> 'undoes')::bigint as undoes, data ->> 'defect' as defect,
             data ->> 'comment' as comment, data ->> 'by' as said_by, data ->> 'where' as said_where,
             model as saw_model, model_digest as saw_digest, data ->> 'saw_verdict' as saw_verdict,
             least(time, heard_at) as at, time_quality, heard_at
      from record where kind = 'label') as said
order by box, journal, number, heard_at;

-- Each person's last word about a part that was not taken back. `is_last`: nobody said anything about it later.
create or replace view label_in_force as
select distinct on (box, journal, part_row, said_by) said.*,
       number = max(number) over (partition by box, journal, part_row) as is_last
from label said
where label is not null and not exists (
    select from label undo
    where undo.box = said.box and undo.journal = said.journal and undo.undoes = said.number)
order by box, journal, part_row, said_by, number desc;

create or replace view parts_per_hour as
select site, line, box, date_trunc('hour', at, 'UTC') as hour, count(*) as parts,
       count(*) filter (where verdict = 'accept') as accepted,
       count(*) filter (where verdict = 'reject') as rejected,
       count(*) filter (where verdict = 'unsure') as unsure,
       round((count(*) filter (where verdict = 'reject'))::numeric / count(*), 4) as reject_rate,
       count(*) filter (where time_quality <> 'synced') as clock_not_sure
from part group by site, line, box, hour;

create or replace view reject_rate as
select site, line, box, hour, parts, rejected, unsure, reject_rate,
       round(sum(rejected) over w / sum(parts) over w, 4) as line_reject_rate
from parts_per_hour window w as (partition by site, line, hour);

-- A box that says nothing, or of which the broker said that it is gone and which was not heard since.
create or replace function stale_boxes(silence interval)
returns table (site text, line text, box text, heard_at timestamptz, silent interval, why text) language sql stable as $$
    select site, line, box, heard_at, now() - heard_at,
           case when state = 'offline' and state_at >= heard_at then 'offline: ' || coalesce(state_why, '')
                else 'silent' end
    from fleet.box
    where heard_at < now() - silence or (state = 'offline' and state_at >= heard_at)
$$;
create or replace view stale_box as select * from stale_boxes(interval '60 seconds');

-- Numbers that did not come although later ones did. Young holes are records under way: live overtakes backlog.
create or replace view hole as
select e.box, b.site, b.line, e.epoch, lower(gap) as first, upper(gap) - 1 as last, upper(gap) - lower(gap) as missing,
       e.heard_at
from epoch e join box b using (box),
     unnest(int8multirange(int8range(1, upper(e.received))) - e.received - e.dropped) as gap
where not isempty(e.received);

create or replace view uplink_delay as
select site, line, box, date_trunc('hour', heard_at, 'UTC') as hour, count(*) as records,
       round(percentile_cont(0.5) within group (order by delay)::numeric, 3) as p50_s,
       round(percentile_cont(0.99) within group (order by delay)::numeric, 3) as p99_s,
       round(max(delay)::numeric, 3) as most_s,
       round(max(extract(epoch from stored_at - heard_at))::numeric, 3) as most_stored_s
from (select *, extract(epoch from heard_at - time) as delay from record where time_quality = 'synced') as timed
group by site, line, box, hour;

-- Scores in 20 bins of 0.05. Counts of boxes add up to those of a line exactly: that is why they are histograms.
create or replace view score_histogram as
select site, line, model, (at at time zone 'UTC')::date as day, box,
       least(greatest(floor(score * 20), 0), 19)::int as bin, count(*) as parts
from part where score is not null and model is not null
group by site, line, model, day, box, bin;

create or replace view score_histogram_line as
select site, line, model, day, bin, sum(parts)::bigint as parts
from score_histogram group by site, line, model, day, bin;

-- Population stability index of a day against the reference day, sum of (p - q) ln(p / q) over the bins, half a part
-- added to each bin so that an empty one is no infinity. Usual reading: below 0.1 steady, above 0.25 shifted.
-- `by_chance` is what two samples of the same scores give on average, (bins - 1) (1/n + 1/m) (Yurdakul 2018).
create or replace view score_drift as
with total as (
    select site, line, model, day, sum(parts) as parts from score_histogram_line group by site, line, model, day
), reference as (
    select site, line, model, coalesce(r.day, first.day) as day
    from (select site, line, model, min(day) filter (where parts >= 1000) as day
          from total group by site, line, model) as first
    left join reference_day r using (site, line, model)
), share as (
    select t.site, t.line, t.model, t.day, t.parts, bin,
           (coalesce(h.parts, 0) + 0.5) / (t.parts + 10)::float8 as share
    from total t cross join generate_series(0, 19) as bin
    left join score_histogram_line h using (site, line, model, day, bin)
)
select s.site, s.line, s.model, s.day, f.day as reference, s.parts::bigint as parts,
       round(sum((s.share - q.share) * ln(s.share / q.share))::numeric, 4) as psi,
       round((19 * (1.0 / s.parts + 1.0 / q.parts))::numeric, 4) as by_chance
from share s
join reference f using (site, line, model)
join share q on (q.site, q.line, q.model, q.day, q.bin) = (s.site, s.line, s.model, f.day, s.bin)
group by s.site, s.line, s.model, s.day, f.day, s.parts, q.parts;

select pg_advisory_unlock(5720671);
