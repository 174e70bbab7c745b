"""The `bots` command, for people. It is a client like any other: all it does goes through `bots.Client`."""
