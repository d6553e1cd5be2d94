// The e-mail address, and its code.

import { Act, get } from '../api.js';
import { el, show } from '../dom.js';
import { card, closeButton, field, form, note, passwordField } from '../parts.js';
import { hash } from '../password.js';
import { rich, t } from '../texts.js';

export async function screen(context) {
  const { account } = context;
  const address = field({
    label: t('email.address'), type: 'email', inputmode: 'email', autocomplete: 'email',
    trouble: (text) => (/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(text.trim()) ? null : t('email.malformed')),
  });
  const secret = passwordField({ label: t('password'), account });
  // A repeat that comes too soon means that the first one has sent a code.
  const settled = async ({ code }, wasLost) => (wasLost && code === 'rate_limited' ? true : undefined);
  const change = new Act('PUT', '/email', settled);
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    const email = address.value().trim();
    await change.send({ email, password_hash });
    code(context, email);
  };
  show(
    t('email.title'),
    el('p', { class: 'lead' }, t('email.text')),
    account.email && note('good', el('p', {}, rich('email.now', { email: account.email }))),
    card(t('email.card'), form({ fields: [address, secret], label: t('email.do'), run })),
    account.email && removal(context),
    closeButton(t('cancel')),
    context.footer(),
  );
}

function removal(context) {
  const secret = passwordField({ label: t('password'), account: context.account });
  const remove = new Act('PUT', '/email');
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    await remove.send({ email: null, password_hash });
    done(context, t('email.removed'), t('email.removed.text'));
  };
  return el('details', { class: 'card' }, el('summary', {}, t('email.remove')),
    el('p', {}, t('email.remove.text')),
    form({ fields: [secret], label: t('email.remove'), danger: true, run }));
}

function code(context, email) {
  const digits = codeField();
  const before = context.account.email_verified_at;
  // The repeat of a code that was confirmed finds none to confirm.
  const settled = async () => {
    const { email_verified_at: verified } = await get('/account');
    return verified === before ? undefined : true;
  };
  const confirm = new Act('POST', '/email/code', settled);
  const run = async () => {
    await confirm.send({ code: digits.plain() });
    done(context, t('email.done'), t('email.done.text'));
  };
  show(
    t('code.title'),
    el('p', { class: 'lead' }, rich('code.text', { email })),
    card(t('code.card'), form({ fields: [digits], label: t('code.do'), run })),
    el('button', { type: 'button', class: 'quiet', on: { click: () => screen(context) } }, t('code.other')),
    closeButton(t('cancel')),
    context.footer(),
  );
}

function done(context, title, text) {
  show(
    title,
    el('div', { class: 'tick', 'aria-hidden': 'true', 'data-final': true }),
    el('p', { class: 'lead' }, text),
    closeButton(t('tochat')),
    context.footer(),
  );
}

/** The field of a code of eight digits. */
export function codeField() {
  const plain = (text) => text.replace(/[\s-]/g, '');
  const made = field({
    label: t('code'), hint: t('code.hint'), inputmode: 'numeric', autocomplete: 'one-time-code',
    trouble: (text) => (/^\d{8}$/.test(plain(text)) ? null : t('code.malformed')),
  });
  made.plain = () => plain(made.value());
  made.refused = (error) => {
    if (error.code !== 'wrong_code') return false;
    made.say(t('error.wrong_code'));
    made.input.select();
    made.input.focus();
    return true;
  };
  return made;
}
