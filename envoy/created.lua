-- The transcoder answers 200 for every success. It has no setting for the code, and a header mutation may not touch
-- :status. Only routes of a Create* method that came in as REST run this, so gRPC callers keep their 200.
function envoy_on_response(response)
  local headers = response:headers()
  if headers:get(":status") == "200" then headers:replace(":status", "201") end
end
