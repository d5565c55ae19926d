// The order service: POST /api/v1/orders, once for each idempotency key; the user service is asked for the buyer.
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Ajv from 'ajv';
import addFormats from 'ajv-formats';
import express from 'express';
import { Pool } from 'undici';
import { createApp, logger, pool, Refused, serve, tls } from './app.js';

const NANOS = 1_000_000_000n;
// The digits of each currency's smaller unit.
const DIGITS = { EUR: 2, USD: 2, GBP: 2, CHF: 2, SEK: 2, PLN: 2, JPY: 0, KWD: 3 };

const database = pool();
const users = new Pool(process.env.USER_SERVICE_URL, { connections: 16, connect: { ...tls, servername: 'user-svc' } });
const app = createApp();

const money = {
  type: 'object',
  required: ['units'],
  additionalProperties: false,
  properties: {
    currencyCode: { type: 'string', pattern: '^[A-Z]{3}$' },
    units: { type: ['string', 'integer'], pattern: '^[0-9]{1,15}$', minimum: 0 },
    nanos: { type: 'integer', minimum: 0, maximum: 999_999_999 },
  },
};
const item = {
  type: 'object',
  required: ['productId', 'quantity', 'unitPrice'],
  additionalProperties: false,
  properties: {
    productId: { type: 'string', minLength: 1, maxLength: 64, pattern: '\\S' },
    name: { type: 'string', maxLength: 255, pattern: '\\S' },
    quantity: { type: 'integer', minimum: 1, maximum: 10_000 },
    unitPrice: money,
  },
};
const isValid = addFormats(new Ajv({ allErrors: true, allowUnionTypes: true })).compile({
  type: 'object',
  required: ['currencyCode', 'items'],
  additionalProperties: false,
  properties: {
    userId: { type: 'string', format: 'uuid' },
    currencyCode: { enum: Object.keys(DIGITS) },
    items: { type: 'array', minItems: 1, maxItems: 100, items: item },
    requestId: { type: 'string', format: 'uuid' },
  },
});
const isUuid = /^"?([0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12})"?$/i;

// Names make them prepared statements.
const sql = (name) => ({ name, text: readFileSync(`../same/${name}.sql`, 'utf8') });
const CREATE = sql('create_order');
const KEPT = sql('kept_answer');

app.post('/api/v1/orders', express.json({ limit: '1mb' }), async (req, res) => {
  if (!isValid(req.body)) throw new Refused(400, 'INVALID_FIELDS', 'the order is not valid', isValid.errors);
  const key = keyOf(req);
  const buyer = req.body.userId?.toLowerCase() ?? req.caller.id;
  const order = price(req.body, buyer);
  if (!req.caller.isStaff && buyer !== req.caller.id) throw unknownBuyer();
  await requireActive(buyer, req);
  const response = JSON.stringify(order.shown);
  const { rows } = await database.query({ ...CREATE, values: valuesOf(order, key, response, req) });
  res.status(201).type('json').send(rows.length ? response : await keptAnswer(key));
});

function keyOf(req) {
  const found = isUuid.exec(req.body.requestId ?? req.get('idempotency-key') ?? req.id);
  if (!found) throw new Refused(400, 'INVALID_FIELDS', 'idempotency-key must be a UUID');
  const { requestId, ...content } = req.body;
  return { caller: req.caller.id, id: found[1], fingerprint: createHash('sha256').update(JSON.stringify(content)).digest() };
}

// Amounts are whole numbers of nanos: exact, as far as numeric(24, 9) goes.
function price({ currencyCode, items }, userId) {
  const step = 10n ** BigInt(9 - DIGITS[currencyCode]);
  let total = 0n;
  const lines = items.map(({ productId, name = '', quantity, unitPrice }) => {
    if ((unitPrice.currencyCode ?? currencyCode) !== currencyCode) throw new Refused(400, 'CURRENCY_MISMATCH', 'one currency an order');
    const amount = BigInt(unitPrice.units) * NANOS + BigInt(unitPrice.nanos ?? 0);
    if (amount % step) throw new Refused(400, 'INVALID_FIELDS', `a price in ${currencyCode} has ${DIGITS[currencyCode]} digits`);
    const sum = amount * BigInt(quantity);
    total += sum;
    return { productId, name, quantity, amount, sum };
  });
  if (total >= 10n ** 24n) throw new Refused(400, 'AMOUNT_OUT_OF_RANGE', 'the total is too large');
  const toMoney = (amount) => ({ currencyCode, units: String(amount / NANOS), nanos: Number(amount % NANOS) });
  const now = new Date();
  return {
    now,
    total: decimal(total),
    items: JSON.stringify(lines.map(({ amount, sum, ...line }) => ({ ...line, unitPrice: decimal(amount) }))),
    shown: {
      id: randomUUID(),
      userId,
      status: 'PENDING',
      items: lines.map(({ amount, sum, ...line }) => ({ ...line, unitPrice: toMoney(amount), totalPrice: toMoney(sum) })),
      totalAmount: toMoney(total),
      cancelReason: '',
      createdAt: now,
      updatedAt: now,
      etag: 'v1',
    },
  };
}

const decimal = (nanos) => `${nanos / NANOS}.${String(nanos % NANOS).padStart(9, '0')}`;

async function requireActive(id, req) {
  const { statusCode, body } = await users.request({
    method: 'GET',
    path: `/api/v1/users/${id}`,
    headers: { authorization: req.get('authorization'), 'x-request-id': req.id },
    headersTimeout: 3000,
  });
  if (statusCode === 200) {
    if ((await body.json()).state !== 'ACTIVE') throw new Refused(400, 'USER_NOT_ACTIVE', 'the buyer may not order');
    return;
  }
  await body.dump();
  if (statusCode === 404) throw unknownBuyer();
  throw new Refused(503, 'USER_SERVICE_UNAVAILABLE', 'try again');
}

const unknownBuyer = () => new Refused(400, 'ORDERING_USER_NOT_FOUND', 'there is no such buyer');

function valuesOf({ now, total, items, shown }, key, response, req) {
  const event = { orderId: shown.id, userId: shown.userId, total: shown.totalAmount };
  const ids = [randomUUID(), randomUUID()];
  const order = [shown.userId, shown.totalAmount.currencyCode, items, total];
  return [key.caller, key.id, key.fingerprint, shown.id, Buffer.from(response), now, ...order, ...ids, event, req.get('traceparent') ?? ''];
}

async function keptAnswer({ caller, id, fingerprint }) {
  const { rows } = await database.query({ ...KEPT, values: [caller, id] });
  if (!rows[0]?.fingerprint.equals(fingerprint)) throw new Refused(409, 'REQUEST_ID_REUSED', 'choose a new idempotency key');
  return rows[0].response.toString();
}

// Answers are kept for a day.
setInterval(() => {
  const swept = database.query("DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'");
  swept.catch((error) => logger.error(error));
}, 600_000).unref();

serve(app, database);
