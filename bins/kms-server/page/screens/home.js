// The wallet at a glance: money, what happened, who used the key, and where to change things.

import { get } from '../api.js';
import { el, show } from '../dom.js';
import { amount, date, native, networkOf, short } from '../format.js';
import { address, card, closeButton, copyButton, linkTo, note, sign, when } from '../parts.js';
import { has, rich, t } from '../texts.js';

/** How many entries a list shows before it is asked for more. */
const FIRST = 5;

export async function screen(context) {
  const { account, footer } = context;
  const parts = { balance: '/balance', history: '/history', uses: '/uses', recovery: '/recovery' };
  const reads = Object.entries(parts).map(async ([name, path]) => [
    // What cannot be read must not hide the rest.
    name, await get(path).catch((error) => ({ error })),
  ]);
  const read = Object.fromEntries(await Promise.all(reads));
  show(
    t('home.title'),
    states(account, read.recovery),
    money(context, read.balance),
    card(t('home.activity'), activity(context, read.history)),
    card(t('home.uses'), el('p', { class: 'hint' }, t('home.uses.hint')), uses(read.uses)),
    sign(account) && card(t('sign.title'), sign(account), el('p', { class: 'hint' }, t('sign.why'))),
    settings(context),
    closeButton(t('tochat')),
    footer(),
  );
}

/** What the owner must know first. */
function states(account, recovery) {
  const notes = [];
  if (account.state === 'frozen') notes.push(note('danger', el('p', {}, t('home.frozen'))));
  if (account.state === 'frozen_by_owner') {
    const text = account.unfreezes_at
      ? rich('home.unfreezes', { time: when(account.unfreezes_at) })
      : t('home.frozenbyowner');
    notes.push(note('warning', el('p', {}, text), !account.unfreezes_at && linkTo('l', t('home.unfreeze'), 'link')));
  }
  if (account.created_by) {
    notes.push(note('warning', el('p', {},
      rich('home.madeby', { date: when(account.created_at, date), token: account.created_by }))));
  }
  if (account.leaves_page_at) {
    const text = rich('home.leaves', { time: when(account.leaves_page_at) });
    notes.push(note('danger', el('p', {}, text), linkTo('l', t('home.stay'), 'link')));
  }
  if (recovery?.id) {
    notes.push(note('danger',
      el('p', {}, rich('home.recovery', { time: when(recovery.requested_at), ready: when(recovery.ready_at) })),
      linkTo(`r${recovery.id}`, t('home.recovery.open'), 'link')));
  }
  return notes;
}

function money(context, balances) {
  const { account, networks, user } = context;
  const sums = balances.error
    ? el('p', { class: 'hint' }, t('home.nobalance'))
    : balances.chains.map(({ chain_id, balance }) => {
      const network = networkOf(context, chain_id);
      const title = networks.length > 1 && el('h3', {}, network.name);
      return [title, balance === null ? el('p', { class: 'hint' }, t('home.nobalance')) : sumsOn(network, balance)];
    });
  const name = account.username ? `@${account.username}` : user.first_name ?? '';
  return el('section', { class: 'card payment', 'aria-label': t('home.balance') },
    el('p', { class: 'to' }, el('bdi', {}, name)), sums,
    el('p', { class: 'center' }, address(account.address)),
    copyButton(account.address, t('home.copy')));
}

function sumsOn(network, balance) {
  const coin = native(network);
  return [
    el('p', { class: 'amount' }, amount(balance.wei, coin)),
    BigInt(balance.pending) > 0n
      && el('p', { class: 'hint center' }, t('home.pending', { amount: amount(balance.pending, coin) })),
    balance.tokens.length > 0 && el('ul', { class: 'list' }, balance.tokens.map(({ token, units }) =>
      el('li', {}, el('span', {}, token.symbol),
        el('span', {}, units === null ? '–' : amount(units, token))))),
  ];
}

function activity(context, history) {
  const { account, networks } = context;
  if (history.error) return el('p', { class: 'hint' }, t('home.unread'));
  const entries = history.entries.filter(({ kind }) => kind === 'transfer' || kind === 'deposit');
  if (entries.length === 0) return el('p', { class: 'hint' }, t('home.noactivity'));
  return folded(entries.map(({ kind, transfer, at, deposit }) => {
    const network = networkOf(context, (transfer ?? deposit).chain_id);
    // Two chains may have assets with the same symbol.
    const on = (networks.length > 1 || !networks.includes(network)) && [' · ', el('bdi', {}, network.name)];
    return kind === 'transfer' ? transferLine(transfer, account, network, on) : depositLine(at, deposit, network, on);
  }));
}

function transferLine(transfer, account, network, on) {
  const isOut = transfer.from.account === account.id;
  const other = isOut ? transfer.to : transfer.from;
  const name = other.username ? `@${other.username}` : short(other.address);
  const isDone = ['mined', 'final'].includes(transfer.state);
  return line(
    rich(isOut ? 'home.to' : 'home.from', { name }),
    [when(transfer.created_at), on, !isDone && [' · ', t(`state.${transfer.state}`)]],
    `${isOut ? '\u2212' : '+'}${amount(transfer.value, transfer.token ?? native(network))}`,
    isOut ? 'out' : 'in',
  );
}

function depositLine(at, deposit, network, on) {
  const who = deposit.count > 1
    ? t('home.small', { count: deposit.count })
    : rich('home.from', { name: deposit.from ? short(deposit.from) : t('home.unknown') });
  return line(who, [when(at), on], `+${amount(deposit.value, deposit.token ?? native(network))}`, 'in');
}

function line(what, detail, value, kind) {
  return el('li', {},
    el('span', { class: 'what' }, el('span', {}, what), el('span', { class: 'hint' }, detail)),
    el('span', { class: `value ${kind}` }, value));
}

function uses(read) {
  if (read.error) return el('p', { class: 'hint' }, t('home.unread'));
  const known = read.uses.filter(({ action }) => has(`use.${action}`)).reverse();
  if (known.length === 0) return el('p', { class: 'hint' }, t('home.nouses'));
  return folded(known.map(({ at, action, outcome, on_page: onPage }) => {
    // Without an outcome it is not known whether it was done.
    const isFine = outcome === 'ok';
    const came = has(`outcome.${outcome ?? 'open'}`)
      ? t(`outcome.${outcome ?? 'open'}`)
      : t('outcome.other');
    return el('li', {},
      el('span', { class: 'what' }, el('span', {}, t(`use.${action}`)),
        el('span', { class: 'hint' }, when(at), ' · ', onPage ? t('use.page') : t('use.elsewhere'))),
      el('span', { class: isFine ? 'value' : 'value bad' }, came));
  }));
}

/** A list that shows its first entries, and the others when asked. */
function folded(items) {
  const list = el('ul', { class: 'list' }, items.slice(0, FIRST));
  if (items.length <= FIRST) return list;
  const more = el('button', { type: 'button', class: 'plain', on: { click: () => {
    list.append(...items.slice(FIRST));
    more.remove();
    items[FIRST].tabIndex = -1;
    items[FIRST].focus();
  } } }, t('home.more', { count: items.length - FIRST }));
  return [list, more];
}

function settings({ account }) {
  const rows = [
    ['e', t('home.email'), account.email ?? t('home.noemail')],
    ['p', t('home.password'), ''],
    ['l', t('home.limits'), ''],
    ['x', t('home.export'), ''],
    ['f', t('home.forgot'), ''],
  ];
  return card(t('home.settings'), el('ul', { class: 'list links' }, rows.map(([purpose, label, detail]) =>
    el('li', {}, linkTo(purpose, label, 'rowlink'), detail && el('span', { class: 'hint' }, el('bdi', {}, detail))))));
}
