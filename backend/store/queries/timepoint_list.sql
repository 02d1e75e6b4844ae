-- Timepoints that a dataset has, in clinical order; cells without a timepoint are the null row.
-- Parameters: $owner, $dataset_id.
-- Grain: one row a timepoint.
select
    timepoint::varchar as timepoint,
    count(*) as n_cells,
    count(distinct donor) as n_donors,
    count(cell_type_fine) as n_labelled
from cells
where owner in ('public', $owner) and dataset_id = $dataset_id
group by cells.timepoint
order by cells.timepoint nulls last;
