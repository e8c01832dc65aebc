"""From a query to the items that score best: exactly, over the whole catalogue."""
