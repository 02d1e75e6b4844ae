-- What chosen cells are: how many of each timepoint, donor and label. Without `$cells` all cells.
-- Parameters: $owner, $dataset_id, $label_level. Optional: $cells (as in `selection_rows`),
-- $timepoints, $truth.
-- Grain: role, value; null: the role is not known of a cell.
select role, value, count(*) as n_cells, count(distinct coalesce(donor, '')) as n_donors
from (
    select
        donor,
        unnest(['label', 'timepoint', 'donor', 'genotype', 'label_source']) as role,
        unnest([
            case when $label_level = 'fine' then cell_type_fine else cell_type_lineage end,
            timepoint::varchar, donor, genotype, label_source
        ]) as value
    from cells
    where owner in ('public', $owner)
        and dataset_id = $dataset_id
        and ($cells is null or get_bit($cells::varchar::bit, cell_index) = 1)
        and is_listed($timepoints, timepoint)
        and is_truth($truth, label_source, genotype)
) roles
group by all
order by role, n_cells desc, value;
