-- Where the labels of labelled cells came from, at each timepoint.
-- Parameters: $owner, $dataset_id. Optional: $label_level, $timepoints, $truth.
-- Grain: timepoint, label_source.
select
    timepoint::varchar as timepoint, label_source,
    count(*) as n_cells, count(distinct donor) as n_donors
from cells
where owner in ('public', $owner)
    and dataset_id = $dataset_id
    and case when $label_level = 'lineage' then cell_type_lineage else cell_type_fine end is not null
    and is_listed($timepoints, timepoint)
    and is_truth($truth, label_source, genotype)
group by cells.timepoint, label_source
order by cells.timepoint nulls last, label_source;
