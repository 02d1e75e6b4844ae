-- Every run, failed and final ones included. `fold` is -1 for a run fitted on all cells; `problem`
-- says why a done run is not scored; `is_current` marks the runs that speak for their series.
-- Parameters: $owner. Optional: $dataset_id.
-- Grain: one row a run.
select
    r.* exclude (run_key, edition_key, dataset_key) replace (label_level::varchar as label_level),
    r.run_key in (select run_key from current_runs($owner)) as is_current
from runs r
where r.owner in ('public', $owner)
    and ($dataset_id is null or r.dataset_id = $dataset_id)
order by r.dataset_id, r.label_level, r.protocol, r.configuration, r.seed, r.series_id, r.fold;
