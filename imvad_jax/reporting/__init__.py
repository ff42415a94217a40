"""What a person looks at: progress, heat maps, tables, pages."""
