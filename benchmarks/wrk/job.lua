-- The job of the part `jobs`: it does nothing.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"sent":0.0,"path":""}'
