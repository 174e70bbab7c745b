"""The API's handlers, a module for each group of calls; `servicer` puts them together."""
