-- What HAProxy cannot do from its configuration alone: hold requests while there is no worker, tell the daemon
-- that a service at rest has a request, and end when nobody needs the process any more.
--
-- Holding: a backend whose servers are all full queues requests. The server `plug` takes one request at a time and
-- is kept full by one that never ends, made here; so a pool without workers is always full, never empty.

local plug, record, name = ...
local plugged = false
local LOOK_EVERY = 30

core.register_service("sink", "http", function(applet)
  plugged = true
  applet:set_var("proc.plugged", 1)
  while true do core.sleep(86400) end
end)

core.register_action("until_plugged", { "http-req" }, function(txn)
  while not plugged do core.msleep(1) end
end)

core.register_action("stir", { "http-req" }, function(txn)
  txn:set_var("proc.rest", 0)
  core.log(core.notice, "stir " .. name)
end)

core.register_task(function()
  while true do
    local door = core.tcp()
    door:settimeout(2000000)
    if door:connect("unix@" .. plug) then
      door:send("GET /plug HTTP/1.1\r\nHost: plug\r\n\r\n")
      door:receive("*l")
    end
    door:close()
    core.msleep(10)
  end
end)

-- The record is removed by the daemon, or goes with its state directory: then nobody would find us again.
core.register_task(function()
  while true do
    core.sleep(LOOK_EVERY)
    local file = io.open(record)
    if not file then os.exit(0) end
    file:close()
  end
end)
