-- Adds the `id` to each server-sent event. Browsers store the id of the last event and send it when they reopen a stream.
-- The transcoder writes only `data`; our messages begin with their resume token, which becomes the id.
function envoy_on_response(response)
  if response:headers():get("content-type") ~= "text/event-stream" then return end
  for chunk in response:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    chunk:setBytes((text:gsub('data: ({"resumeToken":"([%x-]+)"[^\n]*\n)', "id: %2\ndata: %1")))
  end
end
