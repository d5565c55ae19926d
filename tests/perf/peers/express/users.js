// The Node.js article's user service: GET /api/v1/users/:id.
'use strict';

const { createApp, serve, pool, NotFound } = require('./app');

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const database = pool();
const { app, logger } = createApp('user-service');

async function getUserById(id) {
  const { rows } = await database.query({
    name: 'get-user', // a name makes it a prepared statement
    text: `SELECT id, email, display_name, profile, state, roles, created_at, updated_at, version
           FROM users WHERE id = $1`,
    values: [id],
  });
  return rows[0];
}

app.get('/api/v1/users/:id', async (req, res) => {
  const { id } = req.params;
  const user = UUID.test(id) ? await getUserById(id) : undefined;
  if (!user) throw new NotFound('User not found');
  res.json({
    id: user.id,
    email: user.email,
    displayName: user.display_name,
    profile: user.profile,
    state: user.state,
    roles: user.roles,
    createdAt: user.created_at,
    updatedAt: user.updated_at,
    etag: `v${user.version}`,
  });
});

serve({ app, logger });
