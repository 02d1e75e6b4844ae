-- All that is known of chosen cells but for labels, and by which run of a series they were tested.
-- Parameters: $owner, $dataset_id, $label_level, $series_id. Optional: $cell_indices.
-- Grain: one row a cell, by cell_index; without a test prediction `fold` and `run_id` are null.
with tested as (
    select p.cell_index, r.fold, r.run_id
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id = $series_id
        and p.role = 'test'
        and p.label_level = $label_level::level_name
)
select
    c.cell_index, c.cell_id, t.fold, t.run_id, c.donor, c.timepoint::varchar as timepoint, c.study,
    c.sample, c.day, c.label_source, c.genotype, c.n_counts, c.n_genes, c.umap_x, c.umap_y
from cells c
left join tested t using (cell_index)
where c.owner in ('public', $owner)
    and c.dataset_id = $dataset_id
    and (
        $cell_indices is null
        or c.cell_index in (select unnest($cell_indices::integer[]))
    )
order by c.cell_index;
