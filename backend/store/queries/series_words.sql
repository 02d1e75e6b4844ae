-- The words of the labels and test predictions of one series.
-- Parameters: $owner, $dataset_id, $label_level, $series_id.
-- Grain: one row a word.
with found as (
    select p.label_key, p.predicted_key
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id = $series_id
        and p.role = 'test'
        and p.label_level = $label_level::level_name
)
select w.word_id, w.word
from words w
where w.word_id in (
    select label_key from found where label_key is not null
    union
    select predicted_key from found
)
order by w.word_id;
