-- How many of some series call each labelled cell wrong.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids.
-- Grain: one row a cell with a label and a prediction of any of them, by cell_index.
select
    p.cell_index,
    count(*)::integer as n_models,
    count(*) filter (p.predicted_key <> p.label_key)::integer as n_wrong
from prediction_rows p
join current_runs($owner) r using (run_key)
where r.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and list_contains($series_ids, r.series_id)
    and p.role = 'test'
    and p.label_level = $label_level::level_name
    and p.label_key is not null
group by p.cell_index
order by p.cell_index;
