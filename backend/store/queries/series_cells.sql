-- Label and test prediction of the cells that one series tested, as ids of words, which
-- `series_words` spells out; -1 for no label.
-- Parameters: $owner, $dataset_id, $label_level, $series_id.
-- Grain: one row a cell, in no order.
select
    p.cell_index, coalesce(p.label_key, -1)::integer as label_key, p.predicted_key, p.confidence
from prediction_rows p
join current_runs($owner) r using (run_key)
where r.owner in ('public', $owner)
    and r.dataset_id = $dataset_id
    and r.series_id = $series_id
    and p.role = 'test'
    and p.label_level = $label_level::level_name;
