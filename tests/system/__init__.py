"""From outside: the real server process, strangers' clients, kills, bad input, full disks."""
