-- A body of 16 MiB, the most that a service takes by default.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", 16 * 1024 * 1024)
