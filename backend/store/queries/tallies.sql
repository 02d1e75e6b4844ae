-- What every F1 is made of: per cell type its test cells, the cells predicted as it, and both.
-- `n_predicted` counts labelled cells of the same slice, whatever their label.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $timepoints, $truth.
-- Grain: series, timepoint, donor, cell_type. Types that neither occur nor are predicted: no row.
with scored as (
    select distinct edition_key, series_id
    from current_runs($owner)
    where owner in ('public', $owner)
        and dataset_id = $dataset_id
        and list_contains($series_ids, series_id)
),
chosen as (
    select slice_key, dense_rank() over (order by timepoint, donor)::integer as place,
        timepoint, donor
    from slices
    where is_listed($timepoints, timepoint) and is_truth($truth, label_source, genotype)
),
summed as (
    select e.series_id, c.place, t.type_key,
        sum(t.tp)::bigint as tp,
        sum(t.n_label)::bigint as n_label,
        sum(t.n_predicted)::bigint as n_predicted
    from tally_rows t
    join scored e using (edition_key)
    join chosen c using (slice_key)
    where t.label_level = $label_level::level_name
    group by all
)
select
    s.series_id, p.timepoint::varchar as timepoint, p.donor, w.word as cell_type,
    s.tp, s.n_label, s.n_predicted
from summed s
join (select distinct place, timepoint, donor from chosen) p using (place)
join words w on w.word_id = s.type_key
order by s.series_id, s.place, cell_type;
