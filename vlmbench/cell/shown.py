"""Images of examples for a report, from the domain that a record was tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

from vlmbench.cell.domain import build_domain
from vlmbench.config.presence import domain_present
from vlmbench.config.restore import cell_from_dict
from vlmbench.domains.base import Domain, DomainError, ImageError
from vlmbench.errors import UserError

if TYPE_CHECKING:
    from vlmbench.reporting.rows import Row


def image_loader() -> Callable[[Row, str], Image.Image]:
    """Return what gives the image of a row's test split by its key; each domain is built once.

    It raises UserError where the domain is not on this machine, or is another than the one that was tested on.
    """
    built: dict[str, Domain | UserError] = {}

    def load(row: Row, key: str) -> Image.Image:
        mark = row.text("hashes", "data") or row.text("data", "fingerprint")
        if mark not in built:
            try:
                built[mark] = _domain(row, mark)
            except UserError as error:
                built[mark] = error
        domain = built[mark]
        if isinstance(domain, UserError):
            raise domain.with_traceback(None)
        try:
            return domain.images.load(key)
        except ImageError as error:
            raise DomainError(f"an image of {row.domain} cannot be shown: {error}") from error

    return load


def _domain(row: Row, mark: str) -> Domain:
    config = cell_from_dict(row.mapping("config"))
    domain_present(config.domain)
    domain = build_domain(config.domain, config.task.name)  # type: ignore[arg-type]
    if domain.fingerprint != mark:
        raise DomainError(f"the data of {row.domain} on this machine are another version than the one tested on")
    return domain
