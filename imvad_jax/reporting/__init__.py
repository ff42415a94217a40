"""Reports for people: heat maps, tables, pages."""
