-- Labelled against predicted shares of the labelled test cells. Healthy samples that were sorted
-- before sequencing (`BM5-34p`) are left out: their composition is the sorter's.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $timepoints, $truth.
-- Grain: series, donor, timepoint, cell_type. Shares of a donor at a timepoint sum to 1.
with scored as (
    select r.series_id, c.donor, c.timepoint, p.label_key, p.predicted_key, count(*) as n
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
        and not coalesce(c.timepoint = 'Healthy' and regexp_matches(c.sample, '^BM[0-9]+-'), false)
    group by all
),
types as (
    select series_id, donor, timepoint, label_key as type_key, n as n_label, 0 as n_predicted
    from scored
    union all
    select series_id, donor, timepoint, predicted_key, 0, n
    from scored
),
counted as (
    select series_id, donor, timepoint, type_key,
        sum(n_label)::bigint as n_label, sum(n_predicted)::bigint as n_predicted
    from types
    group by all
)
select
    c.series_id, c.donor, c.timepoint::varchar as timepoint, w.word as cell_type,
    c.n_label, c.n_predicted,
    (sum(c.n_label) over slice)::bigint as n_cells,
    c.n_label / sum(c.n_label) over slice as labelled_share,
    c.n_predicted / sum(c.n_predicted) over slice as predicted_share
from counted c
join words w on w.word_id = c.type_key
window slice as (partition by c.series_id, c.donor, c.timepoint)
order by c.series_id, c.timepoint, c.donor, cell_type;
