// The user service: GET /api/v1/users/:id.
import { createApp, pool, Refused, serve } from './app.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const database = pool();
const app = createApp();

app.get('/api/v1/users/:id', async (req, res) => {
  const { id } = req.params;
  if (!UUID.test(id)) throw new Refused(400, 'INVALID_FIELDS', 'id must be a UUID');
  const isAllowed = req.caller.isStaff || req.caller.id === id.toLowerCase();
  const user = isAllowed ? await find(id) : undefined;
  if (!user) throw new Refused(404, 'USER_NOT_FOUND', 'there is no such user');
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

async function find(id) {
  const { rows } = await database.query({
    name: 'get-user', // a name makes it a prepared statement
    text: `SELECT id, email, display_name, profile, state, roles, created_at, updated_at, version
           FROM users WHERE id = $1`,
    values: [id],
  });
  return rows[0];
}

serve(app, database);
