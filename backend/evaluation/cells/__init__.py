"""Single cells: columns of all of them, the map, selections, and what a selection is made of."""
