-- What slice ids of cells stand for.
-- Parameters: $owner, $dataset_id.
-- Grain: one row a combination of roles that occurs.
select
    s.slice_key, s.donor, s.timepoint::varchar as timepoint, s.study, s.label_source, s.genotype
from slices s
join datasets d using (dataset_key)
where d.owner in ('public', $owner) and d.dataset_id = $dataset_id
order by s.slice_key;
