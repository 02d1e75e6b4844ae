-- The cells that a predicate names. Predictions are the test predictions of a series; `$other_id`
-- is the second one of a comparison. A cell is "confidently wrong" from `$threshold` on.
-- Parameters: $owner, $dataset_id, $label_level. Optional: $series_id, $threshold, $other_id,
-- $other_threshold, $timepoints, $truth, $labels, $donors, $studies, $samples, $genotypes,
-- $label_sources, $course, $predicted, $outcomes, $pairs, $other_predicted, $other_outcomes,
-- $agreement.
-- Grain: one row a cell, by cell_index. `$pairs` holds label, chr(31) and prediction as one text.
with predicted as (
    select r.series_id, p.cell_index, p.label_key, p.predicted_key, p.confidence
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id in ($series_id, $other_id)
        and p.role = 'test'
        and p.label_level = $label_level::level_name
),
joined as (
    select
        c.cell_index,
        case
            when a.cell_index is not null then l.word
            when $label_level = 'fine' then c.cell_type_fine
            else c.cell_type_lineage
        end as label,
        t.word as predicted, a.confidence, o.word as other, b.confidence as other_confidence
    from cells c
    left join predicted a on a.cell_index = c.cell_index and a.series_id = $series_id
    left join predicted b on b.cell_index = c.cell_index and b.series_id = $other_id
    left join words l on l.word_id = a.label_key
    left join words t on t.word_id = a.predicted_key
    left join words o on o.word_id = b.predicted_key
    where c.owner in ('public', $owner)
        and c.dataset_id = $dataset_id
        and is_listed($timepoints, c.timepoint)
        and is_listed($course, c.timepoint)
        and is_listed($donors, c.donor)
        and is_listed($studies, c.study)
        and is_listed($samples, c.sample)
        and is_listed($genotypes, c.genotype)
        and is_listed($label_sources, c.label_source)
        and is_truth($truth, c.label_source, c.genotype)
),
judged as (
    select
        *,
        outcome_of(label, predicted, confidence, $threshold) as outcome,
        outcome_of(label, other, other_confidence, $other_threshold) as other_outcome,
        case
            when predicted is null or other is null then null
            when predicted = other then 'same'
            else 'different'
        end as agreement
    from joined
)
select cell_index
from judged
where is_listed($labels, label)
    and is_listed($predicted, predicted)
    and is_listed($outcomes, outcome)
    and is_listed($pairs, label || chr(31) || predicted)
    and is_listed($other_predicted, other)
    and is_listed($other_outcomes, other_outcome)
    and is_listed($agreement, agreement)
order by cell_index;
