"""What a cell leaves: its identity, its directory, its record and its predictions."""
