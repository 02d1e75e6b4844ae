-- How many labelled cells there are; from the labels only, before any score.
-- Parameters: $owner, $dataset_id. Optional: $label_level, $timepoints, $truth.
-- Grain: label_level, cell_type, timepoint, donor, study.
select
    label_level, cell_type, timepoint::varchar as timepoint, donor, study, count(*) as n
from (
    select
        owner, dataset_id, donor, study, label_source, genotype, timepoint,
        unnest(['fine', 'lineage']) as label_level,
        unnest([cell_type_fine, cell_type_lineage]) as cell_type
    from cells
    where owner in ('public', $owner) and dataset_id = $dataset_id
) counted
where cell_type is not null
    and ($label_level is null or label_level = $label_level)
    and is_listed($timepoints, timepoint)
    and is_truth($truth, label_source, genotype)
group by label_level, cell_type, counted.timepoint, donor, study
order by label_level, cell_type, counted.timepoint, donor, study;
