-- All that is known of some cells but for predictions.
-- Parameters: $owner, $dataset_id. Optional: $cell_indices.
-- Grain: one row a cell, by cell_index.
select
    cell_index, cell_id, donor, timepoint::varchar as timepoint, study, sample, day, genotype,
    label_source, n_counts, n_genes
from cells
where owner in ('public', $owner)
    and dataset_id = $dataset_id
    and (
        $cell_indices is null
        or cell_index in (select unnest($cell_indices::integer[]))
    )
order by cell_index;
