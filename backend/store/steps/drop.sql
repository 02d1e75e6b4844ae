-- Remove the bundles in `gone` (kind/owner/name) and all that was read from them; the editions
-- that lose a run are left in `touched`.
create or replace temp table gone_runs as
select run_key, edition_key
from runs
where 'runs/' || owner || '/' || run_id in (select name from gone);

create or replace temp table gone_datasets as
select dataset_key
from datasets
where 'datasets/' || owner || '/' || dataset_id in (select name from gone);

create or replace temp table touched as select distinct edition_key from gone_runs;

delete from prediction_rows where run_key in (select run_key from gone_runs);
delete from confusion_rows where run_key in (select run_key from gone_runs);
delete from runs where run_key in (select run_key from gone_runs);
delete from cells where dataset_key in (select dataset_key from gone_datasets);
delete from slices where dataset_key in (select dataset_key from gone_datasets);
delete from datasets where dataset_key in (select dataset_key from gone_datasets);
delete from bundles where kind || '/' || owner || '/' || name in (select name from gone);
