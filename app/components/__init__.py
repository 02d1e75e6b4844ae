"""Parts that pages share: charts, tables, colours, errors."""
