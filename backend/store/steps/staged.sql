-- Read many predictions.parquet at once, text to ids, with the place of each row in its file.
-- Parameters: $paths. Reads `batch` (file_index: the place in $paths, run_key, dataset_key,
-- label_level).
create or replace temp table staged as
select
    b.run_key,
    b.label_level,
    p.file_row_number::integer as place,
    try_cast(p.role as role_name) as role,
    c.cell_index,
    c.slice_key,
    l.word_id as label_key,
    t.word_id as predicted_key,
    p.confidence
from read_parquet($paths, hive_partitioning = false) p
join batch b using (file_index)
left join cells c on c.dataset_key = b.dataset_key and c.cell_id = p.cell_id
left join words l on l.word = p.label
left join words t on t.word = p.predicted;
