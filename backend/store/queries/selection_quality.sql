-- Quartiles of counts and genes of chosen cells. Without `$cells` of all cells.
-- Parameters: $owner, $dataset_id. Optional: $cells (as in `selection_rows`), $timepoints, $truth.
-- Grain: one row; none when there is no cell.
select
    count(*) as n_cells,
    count(distinct coalesce(donor, '')) as n_donors,
    quantile_cont(n_counts, [0.25, 0.5, 0.75])::double[] as n_counts,
    quantile_cont(n_genes, [0.25, 0.5, 0.75])::double[] as n_genes
from cells
where owner in ('public', $owner)
    and dataset_id = $dataset_id
    and ($cells is null or get_bit($cells::varchar::bit, cell_index) = 1)
    and is_listed($timepoints, timepoint)
    and is_truth($truth, label_source, genotype)
having count(*) > 0;
