// The API of the page: `/app/v1`, authorized by a key that only this page's memory has.

const TIMEOUT = 20_000;

/** How long to wait before each repeat of a request without an answer. */
const PAUSES = [400, 1_200, 3_000];

const key = hex(crypto.getRandomValues(new Uint8Array(32)));

/** The server refused. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.code ?? 'unknown');
    Object.assign(this, { ...body, status, code: body.code ?? 'unknown' });
  }
}

/** No answer came, or one that leaves it open what happened. */
export class Lost extends Error {}

/** Binds what Telegram signed to this page. */
export function open(initData) {
  return repeated('POST', '/launches', { init_data: initData, key });
}

/** Reads. */
export function get(path) {
  return repeated('GET', path);
}

/**
 * An act. While no answer comes, the same request is repeated: the server does a repeated one once.
 * Some it can only refuse, because the first has done its work; so `settled` finds out what is true,
 * and returns it, or undefined if the refusal is the truth. It is asked after every refusal, because
 * browsers repeat requests on their own as well.
 */
export class Act {
  constructor(method, path, settled = async () => undefined) {
    Object.assign(this, { method, path, settled, wasLost: false });
  }

  async send(body) {
    try {
      return await repeated(this.method, this.path, body, () => (this.wasLost = true));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const truth = await this.settled(error, this.wasLost);
      if (truth === undefined) throw error;
      return truth;
    }
  }
}

async function repeated(method, path, body, lost = () => {}) {
  for (const pause of [...PAUSES, null]) {
    try {
      return await once(method, path, body);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      lost();
      if (pause === null) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

async function once(method, path, body) {
  const [status, answer] = await exchange(method, path, body);
  if (status < 300) return answer;
  // The server does not know either, or could not be reached through a proxy.
  if (answer.code === 'store_unavailable' || status === 502 || status === 504) throw new Lost();
  throw new Problem(status, answer);
}

async function exchange(method, path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), TIMEOUT);
  try {
    const answer = await fetch(`/app/v1${path}`, {
      method,
      headers: {
        ...(path === '/launches' ? {} : { Authorization: `Launch ${key}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: stop.signal,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    });
    const text = await answer.text();
    return [answer.status, parsed(text, answer.ok)];
  } catch {
    throw new Lost();
  } finally {
    clearTimeout(timer);
  }
}

function parsed(text, isNeeded) {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch (error) {
    // Half an answer is none; an error of a proxy has its status.
    if (isNeeded) throw error;
    return {};
  }
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
