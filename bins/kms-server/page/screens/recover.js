// A forgotten password: asking, waiting, the code, the new password.

import { Act, get } from '../api.js';
import { el, show } from '../dom.js';
import { card, closeButton, facts, form, linkTo, namesOf, newPassword, note, when }
  from '../parts.js';
import { hash } from '../password.js';
import { rich, t } from '../texts.js';
import { codeField } from './email.js';

export async function screen(context) {
  const open = await get('/recovery');
  if (!open) return context.purpose === 'f' ? ask(context) : ended(context);
  // The page acts for the recovery that it was opened for, and stops a move.
  if (open.moves_to || context.launch.purpose !== `r${open.id}`) return opened(context, open);
  return open.state === 'ready' ? complete(context) : waiting(context, open);
}

function ask(context) {
  const request = new Act('POST', '/recovery');
  const id = crypto.randomUUID();
  const run = async () => {
    try {
      opened(context, await request.send({ id }));
    } catch (error) {
      if (error.code !== 'recovery_open') throw error;
      opened(context, await get('/recovery'));
    }
  };
  show(
    t('recover.title'),
    el('p', { class: 'lead' }, t('recover.text')),
    card(t('recover.how'), el('ol', { class: 'steps' },
      el('li', {}, context.account.email ? rich('recover.code', { email: context.account.email }) : t('recover.nocode')),
      el('li', {}, t('recover.wait')),
      el('li', {}, t('recover.new')))),
    note('warning', el('p', {}, t('recover.stop'))),
    form({ fields: [], label: t('recover.ask'), run }),
    closeButton(t('cancel')),
    context.footer(),
  );
}

/** Stops it: needs no password, because the wallet stays as it is. */
function stop(context) {
  const act = new Act('DELETE', '/recovery');
  const run = async () => {
    await act.send();
    show(
      t('recover.stopped'),
      el('p', { class: 'lead', 'data-final': true }, t('recover.stopped.text')),
      closeButton(t('tochat')),
      context.footer(),
    );
  };
  return note('warning', el('p', {}, t('recover.notyou')),
    form({ fields: [], label: t('recover.end'), danger: true, run }));
}

/** A recovery that is open, on a page that was opened for something else. */
function opened(context, recovery) {
  if (recovery.moves_to) return moving(context, recovery);
  show(
    t('recover.open'),
    status(recovery),
    linkTo(`r${recovery.id}`, recovery.state === 'ready' ? t('recover.set') : t('recover.goon')),
    stop(context),
    closeButton(t('tochat')),
    context.footer(),
  );
}

/** A move to another Telegram account, which operators do. It can be stopped here. */
function moving(context, recovery) {
  const values = { to: String(recovery.moves_to), time: when(recovery.ready_at) };
  show(
    t('recover.move'),
    el('p', { class: 'lead', 'data-final': true }, rich('recover.moving', values)),
    stop(context),
    closeButton(t('tochat')),
    context.footer(),
  );
}

function status(recovery) {
  return el('section', { class: 'card', 'aria-label': t('recover.open'), 'data-final': true }, facts([
    [t('recover.state'), t(`recover.state.${recovery.state}`)],
    [t('recover.requested'), when(recovery.requested_at)],
    recovery.state === 'ready'
      ? [t('recover.expires'), when(recovery.expires_at)]
      : [t('recover.ready'), when(recovery.ready_at)],
  ]));
}

function waiting(context, recovery) {
  const parts = [];
  if (recovery.code_sent_to) {
    const digits = codeField();
    // The repeat of a code that was confirmed finds none to confirm; it has made the wait shorter.
    const settled = async () => {
      const known = await get('/recovery');
      return known && known.ready_at < recovery.ready_at ? known : undefined;
    };
    const confirm = new Act('POST', '/recovery/code', settled);
    const run = async () => {
      const known = await confirm.send({ code: digits.plain() });
      if (known.state === 'ready') await complete(context);
      else waiting(context, known);
    };
    parts.push(
      el('p', { class: 'lead' }, rich('code.text', { email: recovery.code_sent_to })),
      card(t('code.card'), form({ fields: [digits], label: t('code.do'), run })),
    );
  } else {
    parts.push(el('p', { class: 'lead' }, rich('recover.waiting', { time: when(recovery.ready_at) })));
  }
  show(
    t('recover.open'), parts, status(recovery),
    stop(context),
    closeButton(t('tochat')), context.footer(),
  );
}

async function complete(context) {
  const set = new Act('POST', '/recovery/complete');
  const chosen = await newPassword({ names: namesOf(context) });
  const run = async () => {
    const new_password_hash = await hash(context.launch.telegram_id, chosen.value());
    await set.send({ new_password_hash });
    show(
      t('recover.done'),
      el('div', { class: 'tick', 'aria-hidden': 'true', 'data-final': true }),
      el('p', { class: 'lead' }, t('recover.done.text')),
      closeButton(t('tochat')),
      context.footer(),
    );
  };
  show(
    t('recover.set'),
    el('p', { class: 'lead' }, t('recover.set.text')),
    card(t('onboard.password'), form({ fields: [chosen], label: t('recover.set'), run })),
    closeButton(t('cancel')),
    context.footer(),
  );
}

function ended(context) {
  show(
    t('recover.none'),
    el('p', { class: 'lead' }, t('recover.none.text')),
    linkTo('f', t('recover.ask')),
    closeButton(t('tochat')),
    context.footer(),
  );
}
