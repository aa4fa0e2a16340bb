-- The same, for a server that reads only JSON: base64 (four bytes of 1.0 are "AACAPw==", twelve are four times four letters).
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"values":"' .. string.rep("AACAPwAAgD8AAIA/", 341) .. 'AACAPw=="}'
