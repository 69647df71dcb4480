"""Built-in plugins: models."""
