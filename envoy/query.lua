-- The transcoder lets the query say again what the path has said, and takes the last of two values. Here a query names
-- each field once, unless it is a list, in letters without escapes. Whether there is such a field is for the transcoder
-- to say, but for secrets: addresses are written down on the way, so a secret stands in a body. A stream that a browser opens again says in a header where it was: that becomes the query's resume token.
--
-- Only routes of calls with a query, and of streams, run this.

-- What is wrong with the query, for the caller; nil if nothing is. Adds the fields that it names to `named`.
local function complaint(query, context, named)
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
  local headers, context, named = request:headers(), request:filterContext(), {}
  local path = headers:get(":path")
  local query = path:match("%?(.*)$")
  -- A script that fails would let the request pass.
  local was_read, why = pcall(complaint, query or "", context, named)
  if why then
    request:respond({ [":status"] = was_read and "400" or "500" }, was_read and why or "")
    return
  end
  local last = headers:get("last-event-id") or ""
  if context:get("resume_token") == "last-event-id" and last ~= "" and not named.resume_token then
    headers:replace(":path", path .. (query and "&" or "?") .. "resumeToken=" .. escaped(last))
  end
end
