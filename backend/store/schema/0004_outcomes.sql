-- The outcome of a cell under a model, as `outcome_codes` in backend/evaluation/outcomes.py has it.
create macro outcome_of(label, predicted, confidence, threshold) as
    case
        when label is null or predicted is null then 'not scored'
        when label = predicted then 'correct'
        when confidence >= threshold::double then 'confidently wrong'
        else 'wrong'
    end;
