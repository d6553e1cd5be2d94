// What protects the wallet: its limits, its freeze, and that it is used on this page alone.

import { Act, get } from '../api.js';
import { announce, el, show } from '../dom.js';
import { amount, native, networkOf, readCoins } from '../format.js';
import {
  card, choice, closeButton, facts, field, form, linkTo, note, passwordField, when,
} from '../parts.js';
import { hash } from '../password.js';
import { rich, t } from '../texts.js';

export async function screen(context, said) {
  await context.reload();
  const { limits } = await get('/limits');
  const { account } = context;
  show(
    t('lift.title'),
    said && note('good', el('p', { role: 'status' }, said)),
    account.state === 'frozen' && note('danger', el('p', {}, t('home.frozen'))),
    account.state === 'frozen_by_owner' && freeze(context),
    limits.map((limit) => limitCard(context, limit)),
    account.page_only && leave(context),
    closeButton(t('tochat')),
    context.footer(),
  );
  if (said) announce(said);
}

function freeze(context) {
  const { account } = context;
  if (account.unfreezes_at) {
    return note('warning', el('p', {}, rich('home.unfreezes', { time: when(account.unfreezes_at) })));
  }
  const secret = passwordField({ label: t('password'), account });
  const lift = new Act('POST', '/unfreeze');
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    await lift.send({ password_hash });
    await screen(context, t('lift.unfreezing'));
  };
  return card(t('lift.frozen'), el('p', {}, t('lift.frozen.text')),
    form({ fields: [secret], label: t('home.unfreeze'), run }),
    linkTo('f', t('change.forgot'), 'link'));
}

function limitCard(context, { chain_id, token, limit, spent, own, later }) {
  const network = networkOf(context, chain_id);
  const asset = token ?? native(network);
  const name = context.networks.length > 1 ? `${asset.symbol} (${network.name})` : asset.symbol;
  const shown = (units) => (units === null ? t('lift.none') : amount(units, asset));
  return card(t('lift.limit', { symbol: name }),
    facts([
      [t('lift.inforce'), shown(limit)],
      [t('lift.spent'), amount(spent, asset)],
      [t('lift.own'), shown(own)],
      later && [t('lift.coming'), rich('lift.from', { limit: shown(later.units), time: when(later.from) })],
    ]),
    context.account.state === 'active'
      && change(context, { network, name, asset, token, own, shown }));
}

/** The form for another limit, or for none if there is one. */
function change(context, { network, name, asset, token, own, shown }) {
  const { account } = context;
  const { chain_id } = network;
  const set = new Act('PUT', '/limits');
  const wanted = field({
    label: t('lift.new', { symbol: name }), inputmode: 'decimal', hint: t('lift.hint'),
    trouble: (text) => (readCoins(text, asset.decimals) === null ? t('lift.malformed') : null),
  });
  const secret = passwordField({ label: t('password'), account });
  let isNone = false;
  const choose = (none) => {
    isNone = none;
    wanted.node.hidden = none;
  };
  const check = async () => isNone || wanted.check();
  const options = own !== null
    && choice(t('lift.choice'), [[false, t('lift.other')], [true, t('lift.remove')]], choose);
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    const coins = isNone ? 'none' : readCoins(wanted.value(), asset.decimals);
    const body = { chain_id, amount: coins, password_hash, ...(token ? { asset: token.symbol } : {}) };
    const { limits } = await set.send(body);
    const mine = limits.find((known) => known.chain_id === chain_id && known.token?.symbol === token?.symbol);
    const said = mine?.later
      ? t('lift.later', { limit: shown(mine.later.units) })
      : t('lift.now', { limit: shown(mine?.own ?? null) });
    await screen(context, said);
  };
  const amounts = { node: el('div', {}, options, wanted.node), check };
  return el('details', {}, el('summary', {}, t('lift.change', { symbol: name })),
    form({ fields: [amounts, secret], label: t('lift.set'), network, run }));
}

/** Leaving: from then on, the chat may use the password as well. */
function leave(context) {
  const { account } = context;
  if (account.leaves_page_at) {
    const stay = new Act('DELETE', '/leave-page');
    const run = async () => {
      await stay.send();
      await screen(context, t('leave.stayed'));
    };
    return card(t('leave.title'),
      el('p', {}, rich('home.leaves', { time: when(account.leaves_page_at) })),
      form({ fields: [], label: t('home.stay'), run }));
  }
  const secret = passwordField({ label: t('password'), account });
  const act = new Act('POST', '/leave-page');
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    await act.send({ password_hash });
    await screen(context, t('leave.asked'));
  };
  return el('details', { class: 'card' }, el('summary', {}, t('leave.title')),
    el('p', {}, t('leave.text')), note('warning', el('p', {}, t('leave.warning'))),
    form({ fields: [secret], label: t('leave.do'), danger: true, run }));
}
