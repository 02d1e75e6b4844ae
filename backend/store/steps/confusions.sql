-- Count the staged rows that have a label.
insert into confusion_rows
select run_key, label_level, role, slice_key, label_key, predicted_key, count(*)
from staged
where label_key is not null
group by all
order by run_key;
