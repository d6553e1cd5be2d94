// A payment: what it is, from the database; its confirmation, and its replacement.

import { Act, get } from '../api.js';
import { announce, el, show } from '../dom.js';
import { amount, clock, date, native, networkOf } from '../format.js';
import { address, closeButton, facts, form, linkTo, note, passwordField, plainCard, when }
  from '../parts.js';
import { hash } from '../password.js';
import { send } from '../telegram.js';
import { rich, t } from '../texts.js';

/** Warnings that stand out in red. */
const GRAVE = ['name_reassigned', 'looks_like_another'];

/** How often a payment that was sent is read again, and how many times. */
const EVERY = 2_000;
const TIMES = 90;

export async function screen(context) {
  const shown = await get('/transfer');
  if (context.purpose === 's') return speedUp(context, shown.transfer);
  if (shown.transfer.state === 'quoted') return quoted(context, shown);
  return progress(context, shown.transfer);
}

function quoted(context, { transfer, view }, changed = false) {
  const { account } = context;
  const network = networkOf(context, transfer.chain_id);
  const confirm = new Act('POST', '/transfer/confirm');
  const secret = passwordField({ label: t('password'), account });
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    try {
      progress(context, await confirm.send({ password_hash, view }));
    } catch (error) {
      const isOther = ['quote_mismatch', 'quote_expired', 'wrong_state'].includes(error.code);
      if (!isOther) throw error;
      const fresh = await get('/transfer');
      if (fresh.transfer.state === 'quoted') quoted(context, fresh, true);
      else progress(context, fresh.transfer);
    }
  };
  const value = amount(transfer.value, assetOf(transfer, network));
  show(
    t('confirm.title'),
    changed && note('danger', el('p', { role: 'alert' }, t('confirm.changed'))),
    payment(context, transfer),
    warnings(transfer, network),
    plainCard(
      form({ fields: [secret], label: t('confirm.send', { amount: value }), network, run }),
      el('p', { class: 'hint center' },
        rich('confirm.until', { time: when(transfer.expires_at, clock) })),
    ),
    closeButton(t('confirm.not')),
    context.footer(),
  );
}

async function speedUp(context, transfer) {
  if (!['signed', 'broadcast'].includes(transfer.state)) return progress(context, transfer);
  const { account } = context;
  const network = networkOf(context, transfer.chain_id);
  const fee = await get('/transfer/replacement');
  const replace = new Act('POST', '/transfer/replace');
  const id = crypto.randomUUID();
  const secret = passwordField({ label: t('password'), account });
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    progress(context, await replace.send({ id, password_hash, max_fee: fee.max_fee }));
  };
  const coin = native(network);
  const [title, text] = transfer.cancel_requested_at
    ? ['speed.cancel.title', 'speed.cancel.text']
    : ['speed.title', 'speed.text'];
  show(
    t(title),
    el('p', { class: 'lead' }, t(text)),
    payment(context, transfer, [
      [t('speed.usual'), amount(fee.usual_fee, coin)],
      [t('speed.max'), amount(fee.max_fee, coin)],
    ]),
    plainCard(form({ fields: [secret], label: t('speed.do'), network, run })),
    closeButton(t('speed.not')),
    context.footer(),
  );
}

/** What the payment is. `fees` replaces the fees of the quote. */
function payment(context, transfer, fees) {
  const { to, token } = transfer;
  const network = networkOf(context, transfer.chain_id);
  const coin = native(network);
  const most = BigInt(transfer.max_fee);
  const total = token
    ? `${amount(transfer.value, token)} + ${amount(most, coin)}`
    : amount(BigInt(transfer.value) + most, coin);
  return el('section', { class: 'card payment', 'aria-label': t('confirm.payment') },
    el('p', { class: 'amount' }, amount(transfer.value, assetOf(transfer, network))),
    el('p', { class: 'to' }, rich('confirm.to', { name: nameOf(to) })),
    facts([
      [t('confirm.address'), address(to.address)],
      to.since && [t('confirm.since'), date(to.since)],
      ...(fees ?? [
        [t('confirm.fee'), amount(transfer.usual_fee, coin)],
        [t('confirm.total'), total],
      ]),
      [t('confirm.network'), network.name],
    ]));
}

function nameOf(party) {
  if (party.username) return `@${party.username}`;
  return party.account ? t('confirm.user') : t('confirm.external');
}

function assetOf(transfer, network) {
  return transfer.token ?? native(network);
}

function warnings(transfer, network) {
  const { symbol } = assetOf(transfer, network);
  return transfer.warnings.map((warning) => {
    const isGrave = GRAVE.includes(warning)
      || (warning === 'first_payment' && transfer.to.account === null);
    return note(isGrave ? 'danger' : 'warning', el('p', {}, t(`warning.${warning}`, { symbol })));
  });
}

/** What became of the payment, as it goes on. */
function progress(context, transfer, times = TIMES) {
  const network = networkOf(context, transfer.chain_id);
  const { state } = transfer;
  const isPending = ['signed', 'broadcast'].includes(state);
  const isPaid = state === 'mined' || state === 'final';
  // A quote costs nothing; a transaction that cancelled a payment does.
  const isCancelledByFee = state === 'cancelled' && transfer.fee;
  const title = t(`state.${transfer.cancel_requested_at && isPending ? 'cancelling' : state}`);
  const mark = isPaid ? 'tick' : isPending ? 'spinner' : 'cross';
  const coin = native(network);
  show(
    title,
    el('div', { class: mark, 'aria-hidden': 'true', 'data-final': true }),
    el('p', { class: 'lead' }, t(`state.${isCancelledByFee ? 'cancelled.paid' : state}.text`)),
    transfer.failure && note('danger', el('p', {}, t(`failure.${transfer.failure}`))),
    isPending && transfer.wait && note('warning', el('p', {}, t(`wait.${transfer.wait.reason}`))),
    payment(context, transfer, [
      transfer.fee && [t('confirm.paid'), amount(transfer.fee, coin)],
      transfer.tx_hash && [t('confirm.hash'), transaction(transfer.tx_hash, network)],
    ]),
    isPending && context.purpose === 'c' && transfer.wait && linkTo(`s${transfer.id}`, t('speed.do'), 'link'),
    closeButton(t('tochat')),
    context.footer(),
  );
  announce(title);
  if (isPending && times > 0) setTimeout(() => follow(context, transfer, times), EVERY);
}

async function follow(context, transfer, times) {
  const fresh = await get('/transfer').catch(() => null);
  // Meanwhile another screen may be shown.
  if (!document.querySelector('[data-final]')) return;
  const known = fresh?.transfer ?? transfer;
  if (known.state !== transfer.state || known.wait?.reason !== transfer.wait?.reason) {
    progress(context, known, times - 1);
  } else if (times > 1) {
    setTimeout(() => follow(context, known, times - 1), EVERY);
  }
}

/** The hash of a transaction, which leads to the explorer if there is one. */
export function transaction(hash, network) {
  const text = el('span', { class: 'address', dir: 'ltr', translate: 'no' }, `${hash.slice(0, 10)}…${hash.slice(-8)}`);
  if (!network.explorer) return text;
  const href = `${network.explorer.replace(/\/$/, '')}/tx/${hash}`;
  const open = (event) => {
    event.preventDefault();
    send('web_app_open_link', { url: href });
  };
  return el('a', { href, rel: 'noreferrer', on: { click: open } }, text);
}
