-- As vector-json.lua, in a list: one request of a batch.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"values":["' .. string.rep("AACAPwAAgD8AAIA/", 341) .. 'AACAPw=="]}'
