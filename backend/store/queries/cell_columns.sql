-- What is known of every cell before any prediction, but for names and for what `map_slices` spells
-- out by slice id.
-- Parameters: $owner, $dataset_id.
-- Grain: one row a cell, by cell_index.
select
    cell_index, slice_key, cell_type_fine, cell_type_lineage, n_counts, n_genes, umap_x, umap_y
from cells
where owner in ('public', $owner) and dataset_id = $dataset_id
order by cell_index;
