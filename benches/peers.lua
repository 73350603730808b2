-- What wrk sends for peers.sh: signed requests, read from a file and put together before the first is sent. Nothing is
-- signed, and nothing but the delivery's id is written, while the clock runs.
--
--   wrk … -s peers.lua URL -- FILE IDS RUN
--
-- FILE  a request a line: its signature in hex (`-`: it carries none), a space, its body
-- IDS   `own`: every request has an id of its own, as a delivery has; `same`: all have the same, as redeliveries have
-- RUN   a number that no other run against the same server has

local heads, tails, count = {}, {}, 0
local ids, number = "", 0
local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(arguments)
  local file, which, run = arguments[1], arguments[2], tonumber(arguments[3])
  for line in io.lines(file) do
    local signature, body = line:match("^(%S+) (.*)$")
    count = count + 1
    heads[count] = head(#body, signature)
    tails[count] = "\r\n\r\n" .. body
  end
  -- The form of GitHub's ids, of which the last part counts.
  ids = string.format("%08x-%04x-4000-8000-", run, thread_number)
  if which == "same" then
    for index = 1, count do
      heads[index] = heads[index] .. "00000000-0000-4000-8000-000000000000" .. tails[index]
    end
    request = again
  end
end

function head(length, signature)
  local lines = {
    "POST /hooks/blog HTTP/1.1",
    "Host: deploy.example.com",
    "User-Agent: GitHub-Hookshot/044aadd",
    "Accept: */*",
    "Content-Type: application/json",
    "Content-Length: " .. length,
    "X-GitHub-Event: push",
    "X-GitHub-Hook-ID: 292430182",
    "X-GitHub-Hook-Installation-Target-ID: 186853002",
    "X-GitHub-Hook-Installation-Target-Type: repository",
  }
  if signature ~= "-" then
    lines[#lines + 1] = "X-Hub-Signature-256: sha256=" .. signature
  end
  lines[#lines + 1] = "X-GitHub-Delivery: "
  return table.concat(lines, "\r\n")
end

function request()
  number = number + 1
  local index = number % count + 1
  return heads[index] .. ids .. string.format("%012x", number) .. tails[index]
end

function again()
  number = number + 1
  return heads[number % count + 1]
end

-- One line: answers, microseconds, answers above 399, broken or timed-out requests, p50 and p99 in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("result %d %d %d %d %d %d\n", summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50), latency:percentile(99)))
end
