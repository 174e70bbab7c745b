"""`bots replay`: the method on a table of real pass rates, played through a server by the client."""
