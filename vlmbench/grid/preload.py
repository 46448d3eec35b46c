"""Imported by the fork server alone, as its preload: an import with an effect, see `vlmbench.grid.server`."""

from vlmbench.grid.server import prepare_server

prepare_server()
