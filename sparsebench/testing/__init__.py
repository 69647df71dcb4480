"""The conformance kit that backends are checked with."""
