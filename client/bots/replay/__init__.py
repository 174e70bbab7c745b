"""`bots replay`: both evidence models on a table of real pass rates, played through a real server."""
