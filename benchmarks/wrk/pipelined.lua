-- Sixteen bare requests in one piece; the next sixteen when all are answered.
init = function(args)
  sixteen = string.rep(wrk.format("GET"), 16)
end
request = function()
  return sixteen
end
