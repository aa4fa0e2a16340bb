-- A small JSON document, as a client of a model would send it.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name":"ada","values":[1.5,2.5,3.5]}'
