//! RDB: the dump format of Redis and Valkey.
