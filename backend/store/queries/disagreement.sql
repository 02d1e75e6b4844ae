-- On which labelled cells two series are right; cells without a test prediction of both are left
-- out. Without `$other_id` a series is compared with itself.
-- Parameters: $owner, $dataset_id, $label_level, $series_id. Optional: $other_id, $timepoints, $truth.
-- Grain: label, is_right, other_is_right, is_same, donor.
with predicted as (
    select r.series_id, p.cell_index, p.label_key, p.predicted_key
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id in ($series_id, $other_id)
        and p.role = 'test'
        and p.label_level = $label_level::level_name
        and p.label_key is not null
),
compared as (
    select
        a.label_key,
        a.predicted_key = a.label_key as is_right,
        b.predicted_key = a.label_key as other_is_right,
        a.predicted_key = b.predicted_key as is_same,
        c.donor,
        count(*) as n
    from predicted a
    join predicted b on b.cell_index = a.cell_index and b.series_id = coalesce($other_id, $series_id)
    join cells c on c.cell_index = a.cell_index
    where a.series_id = $series_id
        and c.owner in ('public', $owner)
        and c.dataset_id = $dataset_id
        and is_listed($timepoints, c.timepoint)
        and is_truth($truth, c.label_source, c.genotype)
    group by all
)
select w.word as label, k.* exclude (label_key)
from compared k
join words w on w.word_id = k.label_key
order by label, is_right, other_is_right, is_same, donor;
