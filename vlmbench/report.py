"""Turn a directory of records into one HTML page, CSV files, LaTeX tables and figures.

python -m vlmbench.report
python -m vlmbench.report records=runs output=report title='Our models'
python -m vlmbench.report gallery=true  # examples with their images, of data that may leave this machine
python -m vlmbench.report records=runs against=published
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vlmbench.config.checks import check_fields
from vlmbench.config.entry import compose, run


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("report", __doc__ or "")
    for config in composed.configs:
        check_fields(config)
        if config.against:
            from vlmbench.reporting.published import read_references

            read_references(config.against)  # before thousands of records are read
        from vlmbench.reporting.html import write_report
        from vlmbench.reporting.study import Settings

        settings = Settings(**{item.name: getattr(config, item.name) for item in dataclasses.fields(Settings)})
        load_image = None
        if config.gallery:
            from vlmbench.cell.shown import image_loader

            load_image = image_loader()
        paths = write_report(
            Path(config.records),
            Path(config.output),
            title=config.title,
            settings=settings,
            load_image=load_image,
            paper=True,
        )
        print(f"report: {paths.html}")
    return 0


if __name__ == "__main__":
    run(main)
