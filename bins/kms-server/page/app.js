// The vault page: opens the launch that Telegram signed, and shows the screen that it is for.

import * as api from './api.js';
import { announce, el, meta, show } from './dom.js';
import { closeButton, failure, failureCard, languageSwitch, linkTo } from './parts.js';
import * as telegram from './telegram.js';
import { applyTheme } from './theme.js';
import { has, preferred, speak, t } from './texts.js';

/** The screen of each purpose, by the first letter of the start parameter. */
const SCREENS = {
  '': () => import('./screens/home.js'),
  n: () => import('./screens/onboard.js'),
  c: () => import('./screens/confirm.js'),
  s: () => import('./screens/confirm.js'),
  p: () => import('./screens/password.js'),
  e: () => import('./screens/email.js'),
  f: () => import('./screens/recover.js'),
  r: () => import('./screens/recover.js'),
  x: () => import('./screens/export.js'),
  l: () => import('./screens/lift.js'),
};

/** What the screens share: who opened the page for what, their account, the chain. */
const context = { user: telegram.user, reload, footer };

let again = () => {};

async function start() {
  applyTheme();
  telegram.send('iframe_ready', { reload_supported: false });
  telegram.send('web_app_ready');
  telegram.send('web_app_expand');
  await speak(preferred());
  if (telegram.initData === '') return outside();
  await attempt();
}

/** Opens the page, and offers to try again if that fails. */
async function attempt() {
  again = attempt;
  show(t('opening'), el('div', { class: 'spinner' }));
  document.getElementById('screen').setAttribute('aria-busy', 'true');
  try {
    await load();
  } catch (error) {
    refused(error);
    return;
  }
  again = screen;
  await screen();
}

async function load() {
  context.launch = await api.open(telegram.initData);
  context.purpose = context.launch.purpose.slice(0, 1);
  setTimeout(expired, context.launch.expires_in * 1_000);
  const [{ networks }] = await Promise.all([api.get('/networks'), reload()]);
  context.networks = networks;
}

/** Reads the account again. */
async function reload() {
  try {
    const [account, { sign }] = await Promise.all([api.get('/account'), api.get('/sign')]);
    context.account = { ...account, sign };
  } catch (error) {
    if (error.code !== 'no_such_account') throw error;
    context.account = null;
  }
}

async function screen() {
  const module = await SCREENS[context.purpose]();
  const needsWallet = context.purpose !== 'n';
  if (needsWallet && !context.account) return withoutWallet();
  try {
    await module.screen(context);
  } catch (error) {
    refused(error);
  }
}

/** The end of every screen. */
function footer() {
  const change = async (language) => {
    await speak(language);
    await again();
  };
  return el('footer', {}, languageSwitch(change));
}

function withoutWallet() {
  show(t('nowallet.title'), el('p', {}, t('nowallet.text')), linkTo('n', t('nowallet.create')), footer());
}

function outside() {
  again = outside;
  show(
    t('outside.title'),
    el('p', {}, t('outside.text')),
    meta('app') && el('a', { class: 'button', href: meta('app') }, t('outside.open')),
    footer(),
  );
}

function refused(error) {
  const isOver = ['unauthorized', 'invalid_launch', 'launch_used', 'forbidden'].includes(error.code);
  const title = isOver ? t('over.title') : t('failed.title');
  const retry = el('button', { type: 'button', on: { click: () => again() } }, t('again'));
  const here = context.launch?.purpose ?? new URLSearchParams(telegram.initData).get('start_param');
  const action = isOver ? linkTo(here ?? '', t('over.open')) : retry;
  show(title, failureCard(error), action, closeButton(), footer());
  announce(failure(error));
}

function expired() {
  // What the screen shows may be an answer that matters; it is only no longer a way to act.
  if (document.querySelector('[data-final]')) return;
  refused(new api.Problem(401, { code: 'unauthorized' }));
}

addEventListener('unhandledrejection', (event) => {
  event.preventDefault();
  refused(event.reason?.code && has(`error.${event.reason.code}`) ? event.reason : new Error());
});

start();
