-- Series with the state of their folds. `classes` are those of the first done fold.
-- Parameters: $owner. Optional: $dataset_id.
-- Grain: one row a series.
select
    r.series_id,
    any_value(r.dataset_id) as dataset_id,
    any_value(r.protocol) as protocol,
    any_value(r.folds) as folds,
    any_value(r.split_seed) as split_seed,
    any_value(r.budget) as budget,
    any_value(r.model) as model,
    any_value(r.preset) as preset,
    any_value(r.init) as init,
    any_value(r.checkpoint) as checkpoint,
    any_value(r.label_level)::varchar as label_level,
    any_value(r.fraction) as fraction,
    any_value(r.settings) as settings,
    any_value(r.seed) as seed,
    any_value(r.configuration) as configuration,
    arg_max(r.display_name, r.created_at) as display_name,
    any_value(r.split_sha256) as split_sha256,
    count(*) filter (is_scored) as n_folds_done,
    count(*) filter (not is_scored) as n_folds_failed,
    coalesce(list(r.fold order by r.fold) filter (is_scored), []) as folds_done,
    coalesce(list(r.fold order by r.fold) filter (not is_scored), []) as folds_failed,
    coalesce(
        list(coalesce(r.reason, r.problem) order by r.fold) filter (not is_scored), []
    ) as reasons,
    min(r.n_train) filter (is_scored) as n_train_min,
    max(r.n_train) filter (is_scored) as n_train_max,
    coalesce(sum(r.n_test) filter (is_scored), 0)::bigint as n_test,
    sum(r.wall_seconds) as wall_seconds,
    arg_min(r.classes, r.fold) filter (is_scored) as classes,
    list_sort(list_distinct(flatten(list(r.notes)))) as notes,
    max(r.created_at) as created_at
from (
    select *, status = 'done' and problem is null as is_scored
    from current_runs($owner)
    where owner in ('public', $owner)
    -- A fold that failed in public and was done in private is done.
    qualify row_number() over (partition by series_id, fold order by is_scored desc) = 1
) r
where $dataset_id is null or r.dataset_id = $dataset_id
group by r.series_id
order by dataset_id, label_level, protocol, configuration, seed, r.series_id;
