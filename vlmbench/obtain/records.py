"""Records behind a DOI at Zenodo, figshare and Dataverse, listed through pooch.

pooch resolves the DOI and speaks the three APIs. It gives no sizes, cannot continue a download that was killed, and
knows of a Dataverse file only its name and MD5; so its answers are read here, and the transfer is not pooch's.
"""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import urlsplit

from vlmbench.obtain.wanted import DataUnavailableError
from vlmbench.weights.download import Expected

_TIMEOUT = 30.0  # seconds
# figshare's pages turn programs away, and its API needs no page: `GET /v2/articles?doi=...`.
_FIGSHARE = "10.6084/m9.figshare."

#: All names that a file is called by, its own first; address; what is published of it.
File = tuple[tuple[str, ...], str, Expected]


def record(doi: str) -> list[File]:
    """List the files of a record.

    Args:
        doi: `10....`, without the address of a resolver.

    Raises:
        DataUnavailableError: The repository is another, or its answer has no list of files.
        OSError: The server refuses, or cannot be reached.
    """
    from pooch.downloaders import DataverseRepository, FigshareRepository, ZenodoRepository, doi_to_repository

    doi = doi.strip("/")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a figshare DOI without a version means the latest
            if doi.startswith(_FIGSHARE):
                repository = FigshareRepository(doi, f"https://figshare.com/doi/{doi}", timeout=_TIMEOUT)
            else:
                repository = doi_to_repository(doi, timeout=_TIMEOUT)
            if isinstance(repository, FigshareRepository):
                return [_figshare(row) for row in repository.api_response]
            if isinstance(repository, ZenodoRepository):
                return [_zenodo(row, repository) for row in repository.api_response["files"]]
            if isinstance(repository, DataverseRepository):
                rows = repository.api_response.json()["data"]["latestVersion"]["files"]
                return [_dataverse(row, repository) for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if "Invalid data repository" in str(error):
            raise DataUnavailableError(
                f"doi:{doi} leads to none of Zenodo, figshare and Dataverse. Give the address of the file in the "
                "domain's YAML instead."
            ) from error
        raise DataUnavailableError(
            f"doi:{doi}: the repository answers without a list of files ({type(error).__name__}: {error}). The record "
            "may be restricted or withdrawn: open https://doi.org/" + doi
        ) from error
    raise DataUnavailableError(f"doi:{doi} is in a {type(repository).__name__}, of which no files are read here.")


def _zenodo(row: dict[str, Any], repository: Any) -> File:
    """Read `key`, `size` and `checksum` (`md5:...`), or the names that the API had for them in between."""
    name = str(row["key"] if "key" in row else row["filename"])
    size = row.get("size", row.get("filesize"))
    kind, _, digits = str(row.get("checksum") or "").rpartition(":")
    md5 = digits if digits and kind in ("", "md5") else None
    return (name,), str(repository.download_url(name)), Expected(size, md5=md5)


def _figshare(row: dict[str, Any]) -> File:
    """Read a PublicFile of figshare's API, version 2."""
    name = str(row["name"])
    if row.get("is_link_only"):
        raise DataUnavailableError(
            f"figshare has of {name} only a link: {row.get('download_url')}. Download it by hand from there."
        )
    md5 = row.get("computed_md5") or row.get("supplied_md5") or None
    return (name,), str(row["download_url"]), Expected(row.get("size"), md5=md5)


def _dataverse(row: dict[str, Any], repository: Any) -> File:
    """Read a file of Dataverse's native API.

    A table that was "ingested" is offered as tab-separated text and, with `format=original`, as it was uploaded: the
    latter is what papers describe. Which of the two its MD5 belongs to differs (IQSS/dataverse issue 9501), so that
    of such a table only the size is compared.
    """
    file = row["dataFile"]
    folder = str(row.get("directoryLabel") or "").strip("/")
    name = str(file["filename"])
    # By id: two folders may each have a file of that name.
    base = urlsplit(str(repository.download_url(name)))
    url = f"{base.scheme}://{base.netloc}/api/access/datafile/{file['id']}"
    if file.get("originalFileFormat") or file.get("tabularData"):
        original = str(file.get("originalFileName") or _as_uploaded(name, str(file.get("originalFileFormat"))))
        names = tuple(f"{folder}/{one}" if folder else one for one in (original, name))
        return names, f"{url}?format=original", Expected(file.get("originalFileSize"))
    published = file.get("checksum") or {"type": "MD5", "value": file.get("md5")}
    kind, value = str(published.get("type", "")).replace("-", "").lower(), published.get("value") or None
    expected = Expected(
        file.get("filesize"), sha256=value if kind == "sha256" else None, md5=value if kind == "md5" else None
    )
    return (f"{folder}/{name}" if folder else name,), url, expected


def _as_uploaded(name: str, kind: str) -> str:
    endings = {"text/csv": ".csv", "text/comma-separated-values": ".csv", "text/tsv": ".tsv"}
    return name.removesuffix(".tab") + endings[kind] if name.endswith(".tab") and kind in endings else name
