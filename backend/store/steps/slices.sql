-- Number the combinations of roles of one cells.parquet. Parameters: $dataset_key, $path.
insert into slices
select
    (select coalesce(max(slice_key), 0) from slices) + row_number() over (order by all_roles),
    $dataset_key,
    all_roles.donor,
    all_roles.timepoint::timepoint_name,
    all_roles.study,
    all_roles.label_source,
    all_roles.genotype
from (
    select distinct
        {
            'donor': donor,
            'timepoint': timepoint,
            'study': study,
            'label_source': label_source,
            'genotype': genotype
        } as all_roles
    from read_parquet($path, hive_partitioning = false)
);
