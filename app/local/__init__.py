"""The local stack: real PostgreSQL, Valkey and S3 servers as child processes of `darkroom up`."""
