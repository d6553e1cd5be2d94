### The e-mails of kms-server in English: plain text, a subject and a body each.
###
### Subjects have no variables, so that no value can reach a header.
### $owner is "@name (Telegram user 123)"; times are like "29 November 2026, 14:30 UTC".

-secure-telegram = Someone may have access to your Telegram account. In Telegram, open Settings > Devices and end every session you do not recognize. Then turn on two-step verification under Settings > Privacy and Security.

-freeze = If this was not you, freeze the wallet at once. Nothing can be sent from it then, until the freeze is lifted with the password and after a waiting time:
-freeze-too = To stop everything at once, freeze the wallet. Nothing can be sent from it then:

sign =
    Your sign: { $sign }
    Your wallet's page shows the same three above each field for your password. A page or an e-mail with others is not ours.

## Reset of a forgotten password

recovery-requested-subject = Password reset requested for your wallet
recovery-requested-body =
    A password reset was requested for the wallet of { $owner } on { $at }.

    { $next }

    If this was not you, cancel the reset here:
    { $link }
    You can also cancel it by using the wallet with its current password.

    { -freeze-too }
    { $freeze }

    { -secure-telegram }

recovery-requested-with-code =
    If this was you, enter this code before { $until }:

    {"    "}{ $code }

    With the code you can set a new password soon. Without it, you have to wait until { $ready }.
    Enter the code only where you asked for the new password: on your wallet's page, or in the chat with the bot. No one else needs it.
recovery-requested-without-code = If this was you, you can set a new password from { $ready } on.

recovery-confirmed-subject = Password reset: your code was accepted
recovery-confirmed-body =
    The code for the password reset of the wallet of { $owner } was entered on { $at }. A new password can be set from { $ready } on.

    If this was not you, cancel the reset here:
    { $link }
    You can also cancel it by using the wallet with its current password.

    { -freeze-too }
    { $freeze }

    { -secure-telegram }

recovery-ready-subject = You can now set a new password for your wallet
recovery-ready-body =
    The waiting period for the password reset of the wallet of { $owner } ended on { $at }. A new password can be set until { $expires }.{ $reminder }

    If this was you, send /recover to the bot.

    If this was not you, cancel the reset here:
    { $link }
    You can also cancel it by using the wallet with its current password.

    { -freeze-too }
    { $freeze }

    { -secure-telegram }
recovery-ready-code-unused = The code from our e-mail was not used.

recovery-completed-subject = Your wallet has a new password
recovery-completed-body =
    A new password was set for the wallet of { $owner } on { $at }. The old password no longer works. The address and the balance have not changed.

    { -freeze }
    { $freeze }

    { -secure-telegram }

recovery-cancelled-subject = Password reset cancelled
recovery-cancelled-body =
    The password reset for the wallet of { $owner } was cancelled on { $at }. Your password has not changed.

    If you did not cancel it and still need a new password, send /recover to the bot.

    { -freeze-too }
    { $freeze }

## Move to another Telegram account

move-requested-subject = Your wallet is to be moved to another Telegram account
move-requested-body =
    On { $at }, the operators of this service were asked to move the wallet of { $owner } to another Telegram account: Telegram user { $to }. This is for owners who lost their Telegram account. It can happen from { $ready } on.

    If this was not you, cancel the move here:
    { $link }
    You can also cancel it by using the wallet with its password.

    { -freeze-too }
    { $freeze }

move-ready-subject = Your wallet can now be moved to another Telegram account
move-ready-body =
    The waiting period before the wallet of { $owner } is moved to Telegram user { $to } ended on { $at }. The operators can move it until { $expires }.

    If this was not you, cancel the move here:
    { $link }
    You can also cancel it by using the wallet with its password.

    { -freeze-too }
    { $freeze }

moved-subject = Your wallet was moved to another Telegram account
moved-body =
    On { $at }, your wallet was moved. It now belongs to { $owner }. The address and the balance have not changed, and the old password no longer works.

    To use it, send /recover to the bot from that Telegram account, and set a new password.

    { -freeze }
    { $freeze }

move-cancelled-subject = The move of your wallet was cancelled
move-cancelled-body =
    The move of the wallet of { $owner } to another Telegram account was cancelled on { $at }. Nothing has changed.

    If you did not cancel it and still need it, write to the operator of this service.

    { -freeze-too }
    { $freeze }

## Use of the password

notice-password-changed =
    The password of the wallet of { $owner } was changed on { $at } by someone who knew the old password.

    { -freeze }
    { $freeze }

    { -secure-telegram }
    .subject = Your wallet's password was changed

notice-key-exported =
    The private key of the wallet of { $owner } was exported on { $at } by someone who knew the password. Anyone who has the exported file and its passphrase can spend everything in this wallet, now and later, without the bot.

    If this was you, keep the file and the passphrase in different places, and share neither of them.

    If this was not you, changing the password does not help. Create a wallet in another app now and move your funds there: send the bot /send with the new address and "all", and repeat it for each token. Afterwards, freeze this wallet:
    { $freeze }

    { -secure-telegram }
    .subject = Your wallet's private key was exported

## Spending limit

notice-limit-raise-requested =
    A higher daily spending limit was requested for the wallet of { $owner } on { $at }, from your Telegram account. It takes effect 24 hours later at the earliest.

    If this was not you, undo it: send the bot /limit, and then the command that it shows for cancelling the change. This does not need the password.

    { -freeze-too }
    { $freeze }

    { -secure-telegram }
    .subject = Higher spending limit requested for your wallet

## Freeze

notice-account-frozen =
    The wallet of { $owner } was frozen on { $at }. Nothing can be sent from it, its key cannot be exported, and its password cannot be changed or reset. It can still receive money.

    To unfreeze it, send /freeze to the bot. This requires the password and a waiting time, in which you can still change your mind. A freeze by an operator of the bot is lifted by an operator only.

    This link freezes the wallet again, should it be unfrozen without you:
    { $freeze }

    { -secure-telegram }
    .subject = Your wallet is frozen

notice-unfreeze-requested =
    On { $at }, someone used the password of the wallet of { $owner } to request that it is unfrozen. It stays frozen for a waiting time; send /freeze to the bot to see until when.

    If this was not you, keep the wallet frozen, and tell the operator of the bot that someone knows its password:
    { $freeze }

    { -secure-telegram }
    .subject = Request to unfreeze your wallet

notice-unfreeze-cancelled =
    The request to unfreeze the wallet of { $owner } was cancelled on { $at }. The wallet stays frozen.

    To unfreeze it, send /freeze to the bot. This link cancels other requests:
    { $freeze }
    .subject = Your wallet stays frozen

notice-account-unfrozen =
    The wallet of { $owner } was unfrozen on { $at }, and can send again.

    { -freeze }
    { $freeze }

    { -secure-telegram }
    .subject = Your wallet is no longer frozen

## Leaving the vault page

notice-page-leave-requested =
    On { $at }, someone used the password of the wallet of { $owner } on its page to request that its secret acts are possible in the chat again: sending, changing the password, recovering and exporting the key. Nothing changes for a waiting time; open the page to see until when.

    If this was not you, someone knows your password and is using your Telegram account. Freeze the wallet, which also cancels the request:
    { $freeze }

    { -secure-telegram }
    .subject = Request to use your wallet in the chat again

notice-page-leave-cancelled =
    The request to use the wallet of { $owner } in the chat again was cancelled on { $at }. Your password still belongs on the page only.

    { -freeze }
    { $freeze }
    .subject = Your wallet stays on its page

notice-page-left =
    Since { $at }, the wallet of { $owner } can be used in the chat again, and not on its page alone. The next time you enter your password on the page, it is bound to the page again.

    { -freeze }
    { $freeze }

    { -secure-telegram }
    .subject = Your wallet can be used in the chat again

## Security alerts by e-mail

email-change-requested-subject = Change of your e-mail address requested
email-change-requested-body =
    On { $at }, someone used the password of the wallet of { $owner } to request that its security alerts go to another e-mail address.

    { -freeze }
    { $freeze }

    { -secure-telegram }

email-removed-subject = Another address receives your wallet's security alerts
email-removed-body =
    On { $at }, this address was replaced by another one for the security alerts of the wallet of { $owner }, or removed.

    If it was confirmed at least a week ago, it still receives the alerts and codes until the new address is trusted, so that a thief gains nothing by the change.

    { -freeze }
    { $freeze }

    { -secure-telegram }

email-confirmed-subject = This address now receives your wallet's security alerts
email-confirmed-body =
    Since { $at }, this address receives the security alerts of the wallet of { $owner }. If the password is forgotten, a code is sent here.

    If you did not confirm this address, someone else may have access to your e-mail account. Change the password of your e-mail account, and freeze the wallet:
    { $freeze }

email-code-subject = Confirm your e-mail address
email-code-body =
    { $owner } wants to receive the security alerts of their wallet at this address. To confirm, enter this code before { $until }:

    {"    "}{ $code }

    Enter the code only where you gave this address: on your wallet's page, or in the chat with the bot. No one else needs it.
    If this was not you, ignore this e-mail.
