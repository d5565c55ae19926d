-- Answers 201 to a REST call that created a resource. The transcoder answers 200 to every success and has no setting for
-- it, and a header mutation must not change :status. Only REST routes of Create* methods run this script.
function envoy_on_response(response)
  local headers = response:headers()
  if headers:get(":status") == "200" then headers:replace(":status", "201") end
end
