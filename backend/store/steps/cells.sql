-- Read one cells.parquet. Parameters: $dataset_key, $owner, $dataset_id, $path.
insert into cells
select
    $dataset_key, s.slice_key, $owner, $dataset_id, c.file_row_number,
    c.cell_id, c.cell_type_fine, c.cell_type_lineage, c.timepoint::timepoint_name, c.donor, c.study,
    c.sample, c.day, c.label_source, c.genotype, c.is_malignant, c.n_counts, c.n_genes,
    c.umap_x, c.umap_y
from read_parquet($path, file_row_number = true, hive_partitioning = false) c
join slices s
    on s.dataset_key = $dataset_key
    and s.donor is not distinct from c.donor
    and s.timepoint is not distinct from c.timepoint::timepoint_name
    and s.study is not distinct from c.study
    and s.label_source is not distinct from c.label_source
    and s.genotype is not distinct from c.genotype
order by c.file_row_number;
