-- The order of the part `calls`.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"number":1,"lines":[1.5,2.25,1.0]}'
