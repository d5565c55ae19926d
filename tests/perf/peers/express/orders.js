// The Node.js article's order service: POST /api/v1/orders, which asks the user service for the buyer.
'use strict';

const { randomUUID } = require('node:crypto');
const { body, validationResult } = require('express-validator');
const { Pool } = require('undici');
const { createApp, serve, pool, BadRequest } = require('./app');

const database = pool();
const users = new Pool(process.env.USER_SERVICE_URL, { connections: 16 }); // kept alive
const { app, logger } = createApp('order-service');

async function getUserById(id) {
  const { statusCode, body: answer } = await users.request({ method: 'GET', path: `/api/v1/users/${id}` });
  if (statusCode === 404) {
    await answer.dump();
    return undefined;
  }
  if (statusCode !== 200) throw new Error(`user service: ${statusCode}`);
  return answer.json();
}

async function create(order) {
  await database.query({
    name: 'create-order',
    text: `INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, created_at, updated_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
    values: [
      order.id,
      order.userId,
      order.status,
      order.currencyCode,
      JSON.stringify(order.items),
      order.totalAmount,
      order.createdAt,
    ],
  });
}

const rules = [
  body('userId').isUUID(),
  body('currencyCode').matches(/^[A-Z]{3}$/),
  body('items').isArray({ min: 1, max: 100 }),
  body('items.*.productId').isString().isLength({ min: 1, max: 64 }),
  body('items.*.name').optional().isString().isLength({ max: 255 }),
  body('items.*.quantity').isInt({ min: 1, max: 10000 }),
  body('items.*.unitPrice').isFloat({ min: 0 }),
];

app.post('/api/v1/orders', rules, async (req, res) => {
  const errors = validationResult(req);
  if (!errors.isEmpty()) return res.status(400).json({ errors: errors.array() });
  const { userId, currencyCode } = req.body;
  const user = await getUserById(userId);
  if (!user) throw new BadRequest('User not found');
  const items = req.body.items.map((item) => ({ ...item, totalPrice: item.quantity * item.unitPrice }));
  const now = new Date();
  const order = {
    id: randomUUID(),
    userId,
    status: 'PENDING',
    currencyCode,
    items,
    totalAmount: items.reduce((sum, item) => sum + item.totalPrice, 0),
    createdAt: now,
    updatedAt: now,
    etag: 'v1',
  };
  await create(order);
  res.status(201).json(order);
});

serve({ app, logger });
