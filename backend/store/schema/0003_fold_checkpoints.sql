-- Checkpoints that were pre-trained for one fold each: its training cells, and no others.

-- The runs that speak for their series. After a change of split, checkpoint or recipe a series
-- has several editions; only the fullest, then newest, counts, so that no cell is scored twice.
-- Where every fold has a checkpoint of its own, the folds are one edition all the same, and of
-- two runs of a fold the newer done one counts.
-- A public and a private part of one edition belong together.
create or replace macro current_runs(who) as table
    with known as (
        select * from runs where owner in ('public', who) and fold >= 0
    ),
    checkpoints as (
        select
            series_id,
            split_sha256,
            recipe_version,
            checkpoint_sha256,
            count(distinct fold) as n_folds
        from known
        where checkpoint_sha256 is not null
        group by series_id, split_sha256, recipe_version, checkpoint_sha256
    ),
    fold_wise as (
        select series_id, split_sha256, recipe_version
        from checkpoints
        group by series_id, split_sha256, recipe_version
        having max(n_folds) = 1 and count(*) > 1
    ),
    keyed as (
        select
            k.*,
            f.series_id is not null as is_fold_wise,
            case when f.series_id is null then k.checkpoint_sha256 end as edition
        from known k
        left join fold_wise f using (series_id, split_sha256, recipe_version)
    ),
    editions as (
        select
            series_id,
            split_sha256,
            edition,
            recipe_version,
            count(*) filter (status = 'done' and problem is null) as n_scored,
            max(created_at) as newest
        from keyed
        group by series_id, split_sha256, edition, recipe_version
    ),
    chosen as (
        select *
        from editions
        qualify row_number() over (
            partition by series_id
            order by n_scored desc, recipe_version desc, newest desc, split_sha256, edition
        ) = 1
    )
    select k.* exclude (is_fold_wise, edition)
    from keyed k
    join chosen e
        on e.series_id = k.series_id
        and e.split_sha256 = k.split_sha256
        and e.edition is not distinct from k.edition
        and e.recipe_version = k.recipe_version
    qualify not k.is_fold_wise or row_number() over (
        partition by k.series_id, k.fold
        order by (k.status = 'done' and k.problem is null) desc, k.created_at desc, k.run_id
    ) = 1;
