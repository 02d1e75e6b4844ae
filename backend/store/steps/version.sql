-- One hash of everything that was read: equal contents, equal version, in every process.
select sha256(coalesce(string_agg(concat_ws('|', owner, kind, name, sha256, problem), chr(10) order by owner, kind, name), ''))
from bundles;
