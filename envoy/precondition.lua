-- Answers 412 to a REST write whose header if-match names an old etag (RFC 9110, 13.1.1): the transcoder answers 409 to
-- every ABORTED. Only routes of writes with that header run this script.
function envoy_on_response(response)
  if response:headers():get(":status") ~= "409" then return end
  local body = response:body()
  if body and body:getBytes(0, body:length()):find('"ETAG_MISMATCH"', 1, true) then
    response:headers():replace(":status", "412")
  end
end
