SELECT fingerprint, response FROM idempotency_keys WHERE (caller, method, request_id) = ($1, 'CreateOrder', $2)
