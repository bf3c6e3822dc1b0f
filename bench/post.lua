-- wrk: one message of one of 500 users a request.
local number = 0
local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. (os.getenv("BENCH_TOKEN") or "") }
request = function()
  number = number + 1
  local body = string.format('{"message":{"textMessage":{"text":"message %d"}},"user":{"id":"user-%d"}}', number, number % 500)
  return wrk.format("POST", nil, headers, body)
end
done = function(summary, latency, requests)
  local refused = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("BENCH %d %d %d\n", summary.requests, summary.duration, refused))
end
