-- Samples that were sorted before sequencing: their composition is the sorter's. Healthy samples of
-- van Galen 2019 by the form of their names (`BM5-34p`), those of Ennis 2023 by their names.
create macro is_sorted(timepoint, sample) as coalesce(
    (timepoint = 'Healthy' and regexp_matches(sample, '^BM[0-9]+-'))
    or sample in (
        'CD34_D2T1', 'CD34_D3T1', 'Normal_sorted_170531', 'Normal_sorted_170607', 'BM5-34p',
        'BM5-34p38n'
    ),
    false
);
