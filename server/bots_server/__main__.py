"""`python -m bots_server`: the same as the command `bots-server`."""

from bots_server.process.main import main

if __name__ == "__main__":
    main()
