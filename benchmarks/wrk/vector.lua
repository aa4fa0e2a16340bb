-- The input of the batch part's model: 1024 floats, all 1.0, as raw bytes.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("\0\0\128\63", 1024)
