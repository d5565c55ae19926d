-- Browsers keep the `id` of the last event and send it when they open a stream again. The transcoder writes only `data`;
-- a message of ours begins with its resume token, which is that id.
function envoy_on_response(response)
  if response:headers():get("content-type") ~= "text/event-stream" then return end
  for chunk in response:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    chunk:setBytes((text:gsub('data: ({"resumeToken":"([%x-]+)"[^\n]*\n)', "id: %2\ndata: %1")))
  end
end
