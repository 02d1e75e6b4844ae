-- Add the rows of fine-trained runs at lineage level. Reads `lineage_rows` (run_key, place,
-- predicted_key, confidence) and `lineage_of` (fine_key, lineage_key).
insert into staged
select
    s.run_key,
    'lineage'::level_name,
    s.place,
    s.role,
    s.cell_index,
    s.slice_key,
    o.lineage_key,
    r.predicted_key,
    r.confidence
from staged s
join lineage_rows r using (run_key, place)
left join lineage_of o on o.fine_key = s.label_key
where s.label_level = 'fine';
