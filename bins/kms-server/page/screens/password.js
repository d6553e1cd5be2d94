// Another password.

import { Act, get } from '../api.js';
import { el, show } from '../dom.js';
import { closeButton, card, form, linkTo, namesOf, newPassword, passwordField } from '../parts.js';
import { hash } from '../password.js';
import { t } from '../texts.js';

/** When the password was last changed, as the audit has it. */
async function lastChange() {
  const { uses } = await get('/uses');
  return uses.findLast(({ action, outcome }) => action === 'change_password' && outcome === 'ok')?.at;
}

export async function screen(context) {
  const before = await lastChange();
  // The repeat of a change that was made has a password that is no longer right.
  const settled = async () => ((await lastChange()) === before ? undefined : true);
  const change = new Act('PUT', '/password', settled);
  const old = passwordField({ label: t('password.old'), account: context.account });
  const chosen = await newPassword({ names: namesOf(context) });
  const run = async () => {
    const id = context.launch.telegram_id;
    const [old_password_hash, new_password_hash] = await Promise.all([
      hash(id, old.value()), hash(id, chosen.value()),
    ]);
    await change.send({ old_password_hash, new_password_hash });
    show(
      t('change.done'),
      el('div', { class: 'tick', 'aria-hidden': 'true', 'data-final': true }),
      el('p', { class: 'lead' }, t('change.done.text')),
      closeButton(t('tochat')),
      context.footer(),
    );
  };
  show(
    t('change.title'),
    el('p', { class: 'lead' }, t('change.text')),
    card(t('change.card'), form({ fields: [old, chosen], label: t('change.do'), run })),
    linkTo('f', t('change.forgot'), 'link'),
    closeButton(t('cancel')),
    context.footer(),
  );
}
