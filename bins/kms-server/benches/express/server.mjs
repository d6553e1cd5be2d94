// The wallet service that kms-server replaces, with the usual packages: Express, pg, mongodb,
// web3.js and a native Argon2. It seals and wraps as kms-server does, and does no more than it has
// to: no audit, no limits, no idempotency, no e-mail, one price for each payment, nothing wiped.

import cluster from 'node:cluster';
import {
  constants, createCipheriv, createDecipheriv, createHash, createPublicKey, publicEncrypt,
  randomBytes, randomUUID, timingSafeEqual,
} from 'node:crypto';
import { createServer } from 'node:https';

import { Algorithm, hashRaw } from '@node-rs/argon2';
import express from 'express';
import { MongoClient } from 'mongodb';
import pg from 'pg';
import { Web3 } from 'web3';

const { env } = process;

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(env.WORKERS); worker += 1) cluster.fork();
  cluster.on('exit', () => process.exit(1));
} else {
  await serve();
}

async function serve() {
  const pool = new pg.Pool({ connectionString: env.DATABASE_URL, max: 8 });
  const mongo = await new MongoClient(env.MONGODB_URL).connect();
  const keys = mongo.db(env.MONGODB_NAME).collection('express_keys');
  const web3 = new Web3(env.RPC_URL);
  const kmsKey = createPublicKey(env.KMS_PUBLIC_KEY);
  const tokenHash = Buffer.from(env.TOKEN_SHA256, 'hex');

  const app = express();
  app.disable('x-powered-by');
  app.set('etag', false);
  app.use((request, response, next) => {
    const token = (request.headers.authorization ?? '').replace(/^Bearer /, '');
    const hash = createHash('sha256').update(token).digest();
    if (timingSafeEqual(hash, tokenHash)) return next();
    response.status(401).json({ error: 'unauthorized' });
  });
  app.use(express.json());

  app.get('/names/:name', async ({ params }, response) => {
    const found = await pool.query({
      name: 'name',
      text: 'select telegram_id, username, address from express_wallets where username = $1',
      values: [params.name.toLowerCase()],
    });
    if (found.rowCount === 0) return response.status(404).json({ error: 'unknown_name' });
    response.json(found.rows[0]);
  });

  app.get('/wallets/:id', async ({ params }, response) => {
    const found = await pool.query({
      name: 'wallet',
      text: 'select telegram_id, username, address, created_at from express_wallets where telegram_id = $1',
      values: [params.id],
    });
    if (found.rowCount === 0) return response.status(404).json({ error: 'unknown_wallet' });
    response.json(found.rows[0]);
  });

  app.post('/wallets', async ({ body }, response) => {
    const account = web3.eth.accounts.create();
    const salt = randomBytes(16);
    const sck = await derive(body.password, salt);
    const context = `${body.telegramId}|${account.address}`;
    const sealed = seal(sck, Buffer.from(account.privateKey.slice(2), 'hex'), context);
    const wrapped = publicEncrypt(
      { key: kmsKey, oaepHash: 'sha256', padding: constants.RSA_PKCS1_OAEP_PADDING },
      sck,
    );
    const sckId = randomUUID();
    await keys.insertOne({ _id: sckId, wrapped }, { writeConcern: { w: 'majority', j: true } });
    await pool.query({
      name: 'create',
      text: `insert into express_wallets (telegram_id, username, address, salt, sealed, sck_id)
             values ($1, $2, $3, $4, $5, $6)`,
      values: [body.telegramId, body.username.toLowerCase(), account.address, salt, sealed, sckId],
    });
    response.status(201).json({ address: account.address });
  });

  app.post('/payments', async ({ body }, response) => {
    const found = await pool.query({
      name: 'payment',
      text: `select sender.address, sender.salt, sender.sealed, recipient.address as to
             from express_wallets sender, express_wallets recipient
             where sender.telegram_id = $1 and recipient.username = $2`,
      values: [body.telegramId, body.to.toLowerCase()],
    });
    if (found.rowCount === 0) return response.status(404).json({ error: 'unknown_wallet' });
    const { address, salt, sealed, to } = found.rows[0];
    const sck = await derive(body.password, salt);
    const key = open(sck, sealed, `${body.telegramId}|${address}`);
    const [nonce, gasPrice] = await Promise.all([
      web3.eth.getTransactionCount(address, 'pending'),
      web3.eth.getGasPrice(),
    ]);
    const signed = await web3.eth.accounts.signTransaction(
      {
        to, value: body.wei, nonce, gas: 21_000n, chainId: env.CHAIN_ID, type: 2,
        maxFeePerGas: 2n * gasPrice, maxPriorityFeePerGas: 1_000_000_000n,
      },
      key,
    );
    await pool.query({
      name: 'pay',
      text: `insert into express_payments (hash, telegram_id, recipient, wei, nonce, raw)
             values ($1, $2, $3, $4, $5, $6)`,
      values: [signed.transactionHash, body.telegramId, to, body.wei, String(nonce), signed.rawTransaction],
    });
    await web3.requestManager.send({
      method: 'eth_sendRawTransaction', params: [signed.rawTransaction],
    });
    response.status(201).json({ hash: signed.transactionHash });
  });

  // A worker of a cluster shares the port with the others.
  createServer({ cert: env.CERTIFICATE, key: env.CERTIFICATE_KEY, minVersion: 'TLSv1.3' }, app)
    .listen(Number(env.PORT), '127.0.0.1');
}

function derive(password, salt) {
  const parameters = {
    algorithm: Algorithm.Argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1, outputLen: 32,
  };
  return hashRaw(password, { salt, ...parameters });
}

function seal(key, secret, context) {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(context));
  const sealed = Buffer.concat([cipher.update(secret), cipher.final()]);
  return Buffer.concat([nonce, sealed, cipher.getAuthTag()]);
}

function open(key, sealed, context) {
  const cipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
  cipher.setAAD(Buffer.from(context)).setAuthTag(sealed.subarray(-16));
  return Buffer.concat([cipher.update(sealed.subarray(12, -16)), cipher.final()]);
}
