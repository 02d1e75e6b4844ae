-- How often each series is right on chosen cells with a label, and how sure it was.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $cells (as in
-- `selection_rows`).
-- Grain: one row a series that predicts any of them.
select
    r.series_id,
    count(*) as n_cells,
    count(*) filter (p.predicted_key = p.label_key) as n_right,
    count(distinct coalesce(c.donor, '')) as n_donors,
    median(p.confidence)::double as confidence,
    (median(p.confidence) filter (p.predicted_key = p.label_key))::double as confidence_right,
    (median(p.confidence) filter (p.predicted_key <> p.label_key))::double as confidence_wrong
from prediction_rows p
join current_runs($owner) r using (run_key)
join cells c on c.cell_index = p.cell_index and c.dataset_id = r.dataset_id
where r.owner in ('public', $owner)
    and c.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and list_contains($series_ids, r.series_id)
    and p.role = 'test'
    and p.label_level = $label_level::level_name
    and p.label_key is not null
    and ($cells is null or get_bit($cells::varchar::bit, p.cell_index) = 1)
group by r.series_id
order by r.series_id;
