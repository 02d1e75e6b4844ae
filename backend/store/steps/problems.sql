-- What is wrong with the staged predictions of each run. Parameters: $twice (keys of runs that
-- predict a cell twice). Grain: one row a damaged run.
select
    run_key,
    case
        when count(*) filter (cell_index is null) > 0
            then count(*) filter (cell_index is null)::varchar
                || ' of ' || count(*)::varchar || ' predicted cells are not in its dataset'
        when bool_or(role is null) then 'a role is neither valid nor test'
        when bool_or(predicted_key is null) then 'a cell has no prediction'
        when bool_or(list_contains($twice, run_key)) then 'a cell is predicted twice'
        else 'a confidence is not a number from 0 to 1'
    end as problem
from staged
where cell_index is null
    or role is null
    or predicted_key is null
    or coalesce(confidence < 0 or confidence > 1.0001 or isnan(confidence), true)
    or list_contains($twice, run_key)
group by run_key;
