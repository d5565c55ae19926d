-- The order with all that is written beside it, for the peers that do the shop's work: one statement is one transaction
-- and one round trip. Without a row the idempotency key was used before.
WITH claimed AS (
    INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, resource_id, response, created_at)
    VALUES ($1, 'CreateOrder', $2, $3, $4, $5, $6)
    ON CONFLICT (caller, method, request_id) DO NOTHING
    RETURNING resource_id, created_at
),
inserted AS (
    INSERT INTO orders
        (id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at, updated_at, version)
    SELECT resource_id, $7::uuid, 'PENDING', $8::text, $9::jsonb, $10::numeric, '', created_at, created_at, 1
    FROM claimed
    RETURNING id
),
history AS (
    INSERT INTO order_events (id, order_id, version, from_status, to_status, reason, occurred_at)
    SELECT $11::uuid, resource_id, 1, NULL, 'PENDING', '', created_at FROM claimed
),
event AS (
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    SELECT $12::uuid, 'order.created', resource_id, 1, $13::jsonb, $14::text, created_at FROM claimed
)
SELECT id FROM inserted
