-- Chosen cells with all that is known of them and their test prediction by one series.
-- Parameters: $owner, $dataset_id, $label_level, $series_id. Optional: $cell_indices.
-- Grain: one row a cell; wrong ones first, the most confident first.
with chosen as (
    select *
    from cells
    where owner in ('public', $owner)
        and dataset_id = $dataset_id
        and (
            $cell_indices is null
            or cell_index in (select unnest($cell_indices::integer[]))
        )
),
predicted as (
    select p.cell_index, p.label_key, p.predicted_key, p.confidence, r.fold, r.run_id
    from prediction_rows p
    join current_runs($owner) r using (run_key)
    where r.owner in ('public', $owner)
        and r.dataset_id = $dataset_id
        and r.series_id = $series_id
        and p.role = 'test'
        and p.label_level = $label_level::level_name
)
select
    c.cell_index, c.cell_id,
    case
        when p.cell_index is not null then l.word
        when $label_level = 'fine' then c.cell_type_fine
        else c.cell_type_lineage
    end as label,
    t.word as predicted, p.confidence, p.fold, p.run_id,
    c.donor, c.timepoint::varchar as timepoint, c.study, c.sample, c.day, c.label_source,
    c.genotype, c.n_counts, c.n_genes, c.umap_x, c.umap_y
from chosen c
left join predicted p using (cell_index)
left join words l on l.word_id = p.label_key
left join words t on t.word_id = p.predicted_key
order by coalesce(label <> t.word, false) desc, p.confidence desc, c.cell_index;
