"""Run folders: how they are stored, what their numbers mean, how two compare. Nothing here knows torch."""
