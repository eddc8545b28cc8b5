//! `dqlite_server_*`: its files, auto bootstrap and join, address refresh.
