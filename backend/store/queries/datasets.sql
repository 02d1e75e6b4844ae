-- Datasets that the owner may see.
-- Parameters: $owner.
-- Grain: one row a dataset.
select
    owner, dataset_id, name, simulated, source, citation, licence_note, parent,
    n_cells, n_donors, info
from datasets
where owner in ('public', $owner)
order by simulated, name, dataset_id;
