"""Built-in plugins: methods."""
