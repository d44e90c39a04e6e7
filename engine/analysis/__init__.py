"""Plain tables and curves from finished results; the app, `export` and Python all use these. Needs no torch."""
