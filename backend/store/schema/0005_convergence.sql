-- How a fit with epochs ended: `convergence` of run.json, null where it says nothing.
alter table runs add column convergence json;
