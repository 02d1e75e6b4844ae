"""Store: immutable bundles and the DuckDB cache that queries them."""
