// What both services share: TLS, tokens, the JSON log, metrics, errors, and an orderly end.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import https from 'node:https';
import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import pg from 'pg';
import pino from 'pino';
import prometheus from 'prom-client';

const { env } = process;
const STAFF = new Set(['SUPPORT', 'ADMIN', 'SERVICE']);
const MAX_TOKENS = Number(env.TOKEN_MEMORY);

export class Refused extends Error {
  constructor(status, reason, message, details) {
    super(message);
    Object.assign(this, { status, reason, details });
  }
}

const files = (names) => Object.fromEntries(Object.entries(names).map(([option, name]) => [option, readFileSync(`${env.TLS_FOLDER}/${name}`)]));
// The service's own certificate, and the authority whose certificates it accepts, as a server and as a client.
export const tls = files({ ca: 'ca.crt', key: 'tls.key', cert: 'tls.crt' });

prometheus.collectDefaultMetrics();
const duration = new prometheus.Histogram({
  name: 'http_request_duration_seconds',
  help: 'Duration of HTTP requests in seconds',
  labelNames: ['method', 'route', 'status_code'],
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
});

// Buffered and asynchronous, as pino's documentation recommends for speed.
const destination = pino.destination({ dest: env.LOG_FILE, sync: false, minLength: 4096 });
export const logger = pino({ base: { service: env.SERVICE_NAME, version: env.SERVICE_VERSION } }, destination);

function observed(req, res, next) {
  const start = performance.now();
  req.id = req.get('x-request-id') ?? randomUUID();
  res.on('close', () => {
    const took = performance.now() - start;
    const route = req.route?.path ?? 'none';
    duration.labels(req.method, route, res.statusCode).observe(took / 1000);
    logger.info({ request_id: req.id, method: req.method, path: req.url, status: res.statusCode, duration_ms: took, caller: req.caller?.id }, 'request');
  });
  next();
}

const keys = createRemoteJWKSet(new URL(env.JWKS_URL), { cacheMaxAge: 300_000 });
const claims = {
  algorithms: ['EdDSA'],
  typ: 'at+jwt',
  issuer: env.TOKEN_ISSUER,
  audience: env.TOKEN_AUDIENCE,
  clockTolerance: 5,
  requiredClaims: ['sub', 'exp', 'iat', 'jti', 'sid', 'roles'],
};
// Verified tokens, the oldest first: a signature costs as much as the rest of a request.
const verified = new Map();

async function callerOf(token) {
  const known = verified.get(token);
  if (known && known.expires > Date.now()) return known;
  const { payload } = await jwtVerify(token, keys, claims);
  const caller = { id: payload.sub, isStaff: payload.roles.some((role) => STAFF.has(role)), expires: (payload.exp + 5) * 1000 };
  if (verified.size >= MAX_TOKENS) verified.delete(verified.keys().next().value);
  if (MAX_TOKENS > 0) verified.set(token, caller);
  return caller;
}

export async function authenticated(req, res, next) {
  const header = req.get('authorization') ?? '';
  if (!header.startsWith('Bearer ')) throw new Refused(401, 'TOKEN_INVALID', 'send an access token');
  try {
    req.caller = await callerOf(header.slice(7));
  } catch (error) {
    if (!error.code?.startsWith('ERR_J')) throw error;
    throw new Refused(401, 'TOKEN_INVALID', 'the access token is not valid: log in again');
  }
  next();
}

export function createApp() {
  const app = express();
  // No digest of each answer: the resource has an etag of its own.
  app.disable('etag').disable('x-powered-by');
  app.get('/health', (req, res) => res.json({ status: 'healthy' }));
  app.get('/metrics', async (req, res) => res.type(prometheus.register.contentType).send(await prometheus.register.metrics()));
  app.use(observed, authenticated);
  return app;
}

export function serve(app, database) {
  app.use((req) => {
    throw new Refused(404, 'NOT_FOUND', `there is no ${req.method} ${req.path}`);
  });
  app.use((error, req, res, next) => {
    const status = error.status ?? 500;
    if (status === 500) logger.error({ err: error, request_id: req.id }, 'failed');
    const message = status === 500 ? 'internal error' : error.message;
    res.status(status).json({ reason: error.reason ?? (status === 500 ? 'INTERNAL' : 'MALFORMED_REQUEST'), message, details: error.details });
  });
  const options = { ...tls, requestCert: true, rejectUnauthorized: true };
  const server = https.createServer(options, app).listen(Number(env.PORT), '127.0.0.1', () => logger.info('listening'));
  // nginx must be the first to close an idle connection.
  server.keepAliveTimeout = 120_000;
  process.on('SIGTERM', () => {
    server.close(async () => {
      await database.end();
      process.exit(0);
    });
    server.closeIdleConnections();
  });
}

export const pool = () => new pg.Pool({ connectionString: env.DATABASE_URL, max: 10, statement_timeout: 5000 });
