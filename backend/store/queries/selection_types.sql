-- Label and test prediction of every cell by one series.
-- Parameters: $owner, $dataset_id, $label_level, $series_id.
-- Grain: one row a cell, by cell_index.
with predicted as (
    select p.cell_index, t.word as predicted
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    join words t on t.word_id = p.predicted_key
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id = $series_id
        and p.role = 'test'
        and p.label_level = $label_level::level_name
)
select
    c.cell_index,
    case when $label_level = 'fine' then c.cell_type_fine else c.cell_type_lineage end as label,
    p.predicted
from cells c
left join predicted p using (cell_index)
where c.owner in ('public', $owner)
    and c.dataset_id = $dataset_id
order by c.cell_index;
