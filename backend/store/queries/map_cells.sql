-- Every cell of the dataset with its test prediction by one series, as little as a map needs: where
-- it lies, what it is called, and the id of its slice, which `map_slices` spells out. Without a
-- prediction (a fold that is missing or failed) `predicted` and `confidence` are null.
-- Parameters: $owner, $dataset_id, $label_level, $series_id.
-- Grain: one row a cell, by cell_index.
with predicted as (
    select p.cell_index, p.label_key, p.predicted_key, p.confidence
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id = $series_id
        and p.role = 'test'
        and p.label_level = $label_level::level_name
)
select
    c.cell_index, c.umap_x, c.umap_y, c.slice_key,
    case
        when p.cell_index is not null then l.word
        when $label_level = 'fine' then c.cell_type_fine
        else c.cell_type_lineage
    end as label,
    t.word as predicted, p.confidence
from cells c
left join predicted p using (cell_index)
left join words l on l.word_id = p.label_key
left join words t on t.word_id = p.predicted_key
where c.owner in ('public', $owner) and c.dataset_id = $dataset_id
order by c.cell_index;
