"""Reporting: tables, heat maps and one self-contained page, from records alone; `html.write_report` is the door."""
