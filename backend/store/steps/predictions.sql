-- Keep the staged rows. They come run by run, so that a series is read in a few row groups.
insert into prediction_rows
select run_key, label_level, role, cell_index, label_key, predicted_key, confidence
from staged;
