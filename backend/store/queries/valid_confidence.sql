-- From which confidence on a wrong cell is "confidently wrong": the median confidence of the
-- correct valid cells. A series without correct valid cells has no row.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids.
-- Grain: one row a series.
select r.series_id, median(p.confidence)::double as threshold, count(*) as n_cells
from prediction_rows p
join current_runs($owner) r using (run_key)
where r.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and list_contains($series_ids, r.series_id)
    and p.role = 'valid'
    and p.label_level = $label_level::level_name
    and p.predicted_key = p.label_key
group by r.series_id
order by r.series_id;
