-- Test cells by predicted type, labelled or not. Samples that were sorted before sequencing are
-- left out (`is_sorted`).
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $timepoints.
-- Grain: series, donor, timepoint, cell_type.
select r.series_id, c.donor, c.timepoint::varchar as timepoint, w.word as cell_type,
    count(*)::bigint as n
from prediction_rows p
join current_runs($owner) r using (run_key)
join cells c on c.dataset_key = r.dataset_key and c.cell_index = p.cell_index
join words w on w.word_id = p.predicted_key
where r.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and list_contains($series_ids, r.series_id)
    and p.role = 'test'
    and p.label_level = $label_level::level_name
    and is_listed($timepoints, c.timepoint)
    and not is_sorted(c.timepoint, c.sample)
group by all
order by r.series_id, timepoint, c.donor, cell_type;
