"""Suites that come with sparsebench, one TOML file each."""
