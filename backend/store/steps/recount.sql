-- Sum the test cells of the editions in `touched` (edition_key) over their folds again.
delete from tally_rows where edition_key in (select edition_key from touched);

insert into tally_rows
with counted as (
    select r.edition_key, c.label_level, c.slice_key, c.label_key, c.predicted_key, sum(c.n) as n
    from confusion_rows c
    join runs r using (run_key)
    where c.role = 'test' and r.edition_key in (select edition_key from touched)
    group by all
)
select
    edition_key, label_level, slice_key, type_key, coalesce(sum(tp), 0), sum(n_label), sum(n_predicted)
from (
    select
        edition_key, label_level, slice_key, label_key as type_key,
        sum(n) filter (label_key = predicted_key) as tp, sum(n) as n_label, 0 as n_predicted
    from counted
    group by all
    union all
    select edition_key, label_level, slice_key, predicted_key, 0, 0, sum(n)
    from counted
    group by all
)
group by all
order by all;
