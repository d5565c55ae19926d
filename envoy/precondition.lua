-- A write that was meant for one etag, by the header if-match, and came too late is 412 over REST (RFC 9110, 13.1.1). The
-- transcoder knows one status for ABORTED, 409. Only routes of writes with that header run this.
function envoy_on_response(response)
  if response:headers():get(":status") ~= "409" then return end
  local body = response:body()
  if body and body:getBytes(0, body:length()):find('"ETAG_MISMATCH"', 1, true) then
    response:headers():replace(":status", "412")
  end
end
