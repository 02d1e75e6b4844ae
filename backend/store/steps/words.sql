-- Labels and predictions that have no id yet. Parameters: $paths.
select word
from (
    select label as word from read_parquet($paths, hive_partitioning = false)
    union
    select predicted from read_parquet($paths, hive_partitioning = false)
)
where word is not null and word not in (select word from words)
order by word;
