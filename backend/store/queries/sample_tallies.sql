-- Per sample and cell type its labelled test cells, the cells predicted as it, and both. A sample
-- without a name is the donor's at that timepoint. Samples that were sorted before
-- sequencing are left out (`is_sorted`).
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $timepoints, $truth.
-- Grain: series, donor, timepoint, sample, day, cell_type.
with scored as (
    select r.series_id, c.donor, c.timepoint, coalesce(c.sample, c.donor) as sample, c.day,
        p.label_key, p.predicted_key, count(*) as n
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    join cells c on c.dataset_key = r.dataset_key and c.cell_index = p.cell_index
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and list_contains($series_ids, r.series_id)
        and p.role = 'test'
        and p.label_level = $label_level::level_name
        and p.label_key is not null
        and is_listed($timepoints, c.timepoint)
        and is_truth($truth, c.label_source, c.genotype)
        and not is_sorted(c.timepoint, c.sample)
    group by all
),
sides as (
    select series_id, donor, timepoint, sample, day, label_key as type_key, n as n_label,
        0 as n_predicted, if(label_key = predicted_key, n, 0) as tp
    from scored
    union all
    select series_id, donor, timepoint, sample, day, predicted_key, 0, n, 0
    from scored
),
summed as (
    select series_id, donor, timepoint, sample, day, type_key, sum(tp)::bigint as tp,
        sum(n_label)::bigint as n_label, sum(n_predicted)::bigint as n_predicted
    from sides
    group by all
)
select
    s.series_id, s.donor, s.timepoint::varchar as timepoint, s.sample, s.day, w.word as cell_type,
    s.tp, s.n_label, s.n_predicted
from summed s
join words w on w.word_id = s.type_key
order by s.series_id, s.timepoint, s.donor, s.day, s.sample, cell_type;
