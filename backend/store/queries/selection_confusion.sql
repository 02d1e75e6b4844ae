-- Labels against test predictions of one series among chosen cells.
-- Parameters: $owner, $dataset_id, $label_level, $series_id. Optional: $cells (as in
-- `selection_rows`).
-- Grain: label, predicted.
select
    l.word as label, t.word as predicted, count(*) as n_cells,
    count(distinct coalesce(c.donor, '')) as n_donors,
    median(p.confidence)::double as confidence
from prediction_rows p
join current_runs($owner) r using (run_key)
join cells c on c.cell_index = p.cell_index and c.dataset_id = r.dataset_id
join words l on l.word_id = p.label_key
join words t on t.word_id = p.predicted_key
where r.owner in ('public', $owner)
    and c.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and r.series_id = $series_id
    and p.role = 'test'
    and p.label_level = $label_level::level_name
    and ($cells is null or get_bit($cells::varchar::bit, p.cell_index) = 1)
group by all
order by n_cells desc, label, predicted;
