-- Checks the query of a REST call. The transcoder would let a query set a field of the path again, and would take the last
-- of two values. This script allows each field once, unless it is a list, with names without escapes. It refuses secrets,
-- because URLs are logged on the way: a secret must be sent in a body. Unknown fields are refused by the transcoder.
-- When a browser reopens a stream, it sends the URL with which it began, and its last position in a header: the header's
-- position replaces the resume token of the URL.
--
-- Only routes of calls with a query, and of streams, run this script.

-- Returns the error message for the caller, or nil if the query is valid.
local function complaint(query, context)
  local named = {}
  for pair in query:gmatch("[^&]+") do
    local name = pair:match("^[^=]*")
    if name:find("[^%w_.]") or pair == name then
      return "A query is made of name=value, with names in plain letters."
    end
    local field = name:gsub("%u", function(letter) return "_" .. letter:lower() end)
    if context:get(field) == "path" then return "The path says already what \"" .. name .. "\" is." end
    if context:get(field) == "secret" then return "\"" .. name .. "\" is a secret: send it in a body." end
    if named[field] and context:get(field) ~= "list" then return "\"" .. name .. "\" is there twice." end
    named[field] = true
  end
end

local function escaped(text)
  return (text:gsub("[^%w-]", function(character) return ("%%%02X"):format(character:byte()) end))
end

function envoy_on_request(request)
  local headers, context = request:headers(), request:filterContext()
  local path = headers:get(":path")
  local query = path:match("%?(.*)$")
  -- If the script failed, Envoy would let the request pass, so errors are caught.
  local was_read, why = pcall(complaint, query or "", context)
  if why then
    request:respond({ [":status"] = was_read and "400" or "500" }, was_read and why or "")
    return
  end
  local last = headers:get("last-event-id") or ""
  if context:get("resume_token") == "last-event-id" and last ~= "" then
    local kept = {}
    for pair in (query or ""):gmatch("[^&]+") do
      if not pair:find("^resumeToken=") and not pair:find("^resume_token=") then kept[#kept + 1] = pair end
    end
    kept[#kept + 1] = "resumeToken=" .. escaped(last)
    headers:replace(":path", path:match("^[^?]*") .. "?" .. table.concat(kept, "&"))
  end
end
