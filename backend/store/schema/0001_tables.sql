-- Tables that cache bundles. Text that repeats on millions of rows is an id into `words`;
-- `predictions` and `confusions` (0002) show it as text again.

create type timepoint_name as enum ('Healthy', 'Diagnosis', 'Post-treatment', 'Relapse');
create type role_name as enum ('valid', 'test');
create type level_name as enum ('fine', 'lineage');

-- What was read: compared with the roots at every sync.
create table bundles (
    owner varchar not null,
    kind varchar not null,          -- datasets | runs
    name varchar not null,          -- folder
    root varchar not null,
    sha256 varchar not null,        -- of dataset.json or run.json
    problem varchar                 -- why it is not shown or not scored
);

create table contents (version varchar not null);

create table words (word_id integer not null, word varchar not null);

create table datasets (
    dataset_key integer not null,
    owner varchar not null,
    dataset_id varchar not null,
    name varchar not null,
    simulated boolean not null,
    source varchar,
    citation varchar,
    licence_note varchar,
    parent varchar,
    n_cells integer not null,
    n_donors integer not null,
    info json not null
);

-- One row for each combination of roles that occurs: what cells are sliced by.
create table slices (
    slice_key integer not null,
    dataset_key integer not null,
    donor varchar,
    timepoint timepoint_name,
    study varchar,
    label_source varchar,
    genotype varchar
);

create table cells (
    dataset_key integer not null,
    slice_key integer not null,
    owner varchar not null,
    dataset_id varchar not null,
    cell_index integer not null,
    cell_id varchar not null,
    cell_type_fine varchar,
    cell_type_lineage varchar,
    timepoint timepoint_name,
    donor varchar,
    study varchar,
    sample varchar,
    day integer,
    label_source varchar,
    genotype varchar,
    is_malignant boolean,
    n_counts float,
    n_genes integer,
    umap_x float,
    umap_y float
);

create table runs (
    run_key integer not null,
    edition_key integer not null,   -- runs of a series from one split, checkpoint and recipe
    dataset_key integer,            -- null: the dataset's bundle is not there
    owner varchar not null,
    problem varchar,
    status varchar not null,
    reason varchar,
    error_kind varchar,
    created_at varchar not null,
    run_id varchar not null,
    series_id varchar not null,
    dataset_id varchar not null,
    protocol varchar not null,
    folds smallint not null,
    split_seed integer not null,
    budget varchar not null,
    model varchar not null,
    preset varchar,
    init varchar not null,
    checkpoint varchar,
    label_level level_name not null,
    fraction double not null,
    settings json not null,
    seed integer not null,
    fold smallint not null,         -- -1: fitted on all cells
    split_sha256 varchar not null,
    checkpoint_sha256 varchar,
    recipe_version integer not null,
    display_name varchar not null,
    configuration varchar not null,
    classes varchar[] not null,
    n_train integer not null,
    n_valid integer not null,
    n_test integer not null,
    n_train_donors integer not null,
    versions json not null,
    device varchar not null,
    wall_seconds double,
    peak_memory_mib double,
    notes varchar[] not null
);

create table prediction_rows (
    run_key integer not null,
    label_level level_name not null,
    role role_name not null,
    cell_index integer not null,
    label_key integer,
    predicted_key integer not null,
    confidence float not null
);

create table confusion_rows (
    run_key integer not null,
    label_level level_name not null,
    role role_name not null,
    slice_key integer not null,
    label_key integer not null,
    predicted_key integer not null,
    n integer not null
);

-- The margins of `confusion_rows` that F1 needs, summed over the folds of an edition.
create table tally_rows (
    edition_key integer not null,
    label_level level_name not null,
    slice_key integer not null,
    type_key integer not null,
    tp integer not null,
    n_label integer not null,
    n_predicted integer not null
);
