-- wrk: one message a request, for one channel after the other; BENCH_TARGETS names a file of paths and tokens.
local number = 0
local targets = {}
for line in io.lines(os.getenv("BENCH_TARGETS")) do
  local path, token = line:match("^(%S+) (%S+)$")
  targets[#targets + 1] = { path, { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token } }
end
request = function()
  number = number + 1
  local target = targets[number % #targets + 1]
  -- 500 users at least, or one of each channel.
  local user = math.floor(number / #targets) % math.max(1, math.floor(500 / #targets))
  local body = string.format('{"message":{"textMessage":{"text":"message %d"}},"user":{"id":"user-%d"}}', number, user)
  return wrk.format("POST", target[1], target[2], body)
end
done = function(summary, latency, requests)
  local refused = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("BENCH %d %d %d\n", summary.requests, summary.duration, refused))
end
