"""Built-in plugins: allocators."""
