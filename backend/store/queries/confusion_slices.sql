-- Labels against predictions of test cells, by timepoint and donor, mutant cells apart.
-- Parameters: $owner, $dataset_id, $label_level, $series_ids. Optional: $timepoints, $truth.
-- Grain: series, timepoint, donor, is_mutant, label, predicted.
with counted as (
    select r.series_id, s.timepoint, s.donor, coalesce(s.genotype = 'mutant', false) as is_mutant,
        c.label_key, c.predicted_key, sum(c.n)::bigint as n
    from confusion_rows c
    join current_runs($owner) r using (run_key)
    join slices s using (slice_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and list_contains($series_ids, r.series_id)
        and c.role = 'test'
        and c.label_level = $label_level::level_name
        and is_listed($timepoints, s.timepoint)
        and is_truth($truth, s.label_source, s.genotype)
    group by all
)
select
    c.series_id, c.timepoint::varchar as timepoint, c.donor, c.is_mutant,
    l.word as label, p.word as predicted, c.n
from counted c
join words l on l.word_id = c.label_key
join words p on p.word_id = c.predicted_key
order by c.series_id, c.timepoint, c.donor, c.is_mutant, label, predicted;
