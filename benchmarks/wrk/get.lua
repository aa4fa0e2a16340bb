-- The bare request: wrk sends Host, and nothing else.
wrk.method = "GET"
