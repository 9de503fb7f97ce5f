"""What a server must survive: being killed, nonsense, a full disk. Short in `make test`, long in `make torture`."""
