// The bridge to Telegram: what it gives the page, and the few events that both send.
// https://core.telegram.org/bots/webapps, without Telegram's own script.

/** Telegram's web client, the only page that may show this one in a frame. */
const WEB = 'https://web.telegram.org';

/** What Telegram wrote into the fragment. It is read once and then removed from the address. */
const given = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, '', location.pathname);

/** What Telegram signed, as it is; empty outside Telegram. */
export const initData = given.get('tgWebAppData') ?? '';

/** Who opened the page, for its words alone: what counts is decided by the server. */
export const user = read(new URLSearchParams(initData).get('user')) ?? {};

/** Telegram's colours. */
export const theme = read(given.get('tgWebAppThemeParams')) ?? {};

const listeners = new Map();

/** Calls this when Telegram sends an event of this kind. */
export function on(kind, listener) {
  listeners.set(kind, listener);
}

/** Sends an event to the app that shows the page. */
export function send(kind, data = {}) {
  const { TelegramWebviewProxy: proxy, external } = window;
  if (proxy?.postEvent) {
    proxy.postEvent(kind, JSON.stringify(data));
  } else if (external && 'notify' in external) {
    external.notify(JSON.stringify({ eventType: kind, eventData: data }));
  } else if (parent !== window) {
    parent.postMessage(JSON.stringify({ eventType: kind, eventData: data }), WEB);
  }
}

/** Reports whether an app of Telegram's shows the page, so that it can be closed. */
export function isShown() {
  const { TelegramWebviewProxy: proxy, external } = window;
  return Boolean(proxy?.postEvent || (external && 'notify' in external) || parent !== window);
}

function receive(kind, data) {
  listeners.get(kind)?.(data ?? {});
}

// The apps for phones and computers call one of these.
window.Telegram = { WebView: { receiveEvent: receive } };
window.TelegramGameProxy = { receiveEvent: receive };
window.TelegramGameProxy_receiveEvent = receive;

// The web client posts messages.
addEventListener('message', ({ source, origin, data }) => {
  if (source !== parent || origin !== WEB) return;
  const message = read(data);
  if (message) receive(message.eventType, message.eventData);
});

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
