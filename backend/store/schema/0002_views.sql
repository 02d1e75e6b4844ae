-- What queries read: facts with their text, and the words that filters share.

create view predictions as
select
    r.owner,
    r.dataset_id,
    r.series_id,
    r.run_id,
    p.label_level,
    p.cell_index,
    r.fold,
    p.role,
    l.word as label,
    t.word as predicted,
    p.confidence
from prediction_rows p
join runs r using (run_key)
left join words l on l.word_id = p.label_key
join words t on t.word_id = p.predicted_key;

create view confusions as
select
    r.owner,
    r.dataset_id,
    r.series_id,
    r.run_id,
    c.role,
    c.label_level,
    s.donor,
    s.timepoint,
    s.study,
    s.label_source,
    s.genotype,
    l.word as label,
    t.word as predicted,
    c.n
from confusion_rows c
join runs r using (run_key)
join slices s using (slice_key)
join words l on l.word_id = c.label_key
join words t on t.word_id = c.predicted_key;

-- No list means no filter.
create macro is_listed(names, name) as names is null or list_contains(names, name::varchar);

-- Which cells are scored: see `TRUTHS` in backend/types.py.
create macro is_truth(truth, label_source, genotype) as
    coalesce(truth, 'all') = 'all'
    or (truth = 'mutant' and genotype = 'mutant')
    or label_source = truth;

-- The runs that speak for their series. After a change of split, checkpoint or recipe a series
-- has several editions; only the fullest, then newest, counts, so that no cell is scored twice.
-- A public and a private part of one edition belong together.
create macro current_runs(who) as table
    with editions as (
        select
            series_id,
            split_sha256,
            checkpoint_sha256,
            recipe_version,
            count(*) filter (status = 'done' and problem is null) as n_scored,
            max(created_at) as newest
        from runs
        where owner in ('public', who) and fold >= 0
        group by series_id, split_sha256, checkpoint_sha256, recipe_version
    ),
    chosen as (
        select *
        from editions
        qualify row_number() over (
            partition by series_id
            order by n_scored desc, recipe_version desc, newest desc, split_sha256,
                checkpoint_sha256
        ) = 1
    )
    select r.*
    from runs r
    join chosen e
        on e.series_id = r.series_id
        and e.split_sha256 = r.split_sha256
        and e.checkpoint_sha256 is not distinct from r.checkpoint_sha256
        and e.recipe_version = r.recipe_version
    where r.fold >= 0 and r.owner in ('public', who);
