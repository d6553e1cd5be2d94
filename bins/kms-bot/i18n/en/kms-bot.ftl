### The texts of kms-bot in English, with a section for each flow.
### Messages are Telegram HTML, with escaped variables (src/texts.rs). Ids that end in -button, -description, -notice or -status are plain text.

## Any flow
-not-encrypted = Telegram chats with bots are not end-to-end encrypted. I delete your message right away, before I use it.
-use-nowhere-else = Choose a password that you use nowhere else.
no-wallet = You don't have a wallet yet. Send /start to create one.
unknown-command = I don't know that command. Send /help to see what I can do.
unknown-command-similar = I don't know that command. Did you mean /{ $command }?
unexpected-arguments = Nothing goes after /{ $command }, so I left out the rest of your message. I understood: /{ $command } ({ $description }).
unknown-command-deleted = I don't know that command. I deleted your message in case it was a password; a password cannot start with a slash.
unexpected-text = I wasn't waiting for an answer. Send /help to see what I can do.
unexpected-command = Commands start with a slash. Did you mean <code>{ $command }</code>?
unexpected-newcomer = 👋 Hi! I give you a wallet that you use by chatting. Send /start to create it.
unexpected-text-deleted = I was no longer waiting for a password. I deleted your message in case it was one, and did not use it.
edited-command = I don't read edited messages. Please send the command again as a new message.
edited-answer = I don't read edited messages. { $wanted }
other-content = That is { $what }, and I read only text that you type yourself. { $wanted }
other-deleted = That was { $what }. I read passwords only from a text that you type yourself, so I deleted it in case it showed yours. { $wanted }
content-edit = an edited message
content-forward = a forwarded message
content-contact = a contact
content-picture = a picture
content-video = a video
content-file = a file
content-voice = an audio message
content-sticker = a sticker or an animated emoji
content-place = a location
content-poll = a poll
content-notice = a notice from Telegram
content-other = a kind of message that I don't know
wanted-nothing = Send /help to see what I can do.
wanted-password = Please type your password as your next message.
wanted-new-password = Please type your new password as your next message.
wanted-code = Please send the code from the e-mail: it has 8 digits.
wanted-email = Please send your e-mail address.
display-name = { $name }
no-name = (no name)
password-not-deleted = ⚠️ I could not delete your message, which may show a secret, so I did not use it. Please delete it yourself. If I had asked you for it, send it again afterwards, or leave with /cancel.
group-invitation = We do that in our private chat only. Press the button to continue there.
group-busy = Your group sent me too many commands within a minute, so I answer yours here. Press the button to continue.
group-button = Open the private chat
group-password-deleted = ⚠️ You wrote what may be your password in a group. I deleted it there, but others may have seen it: choose a new one with /password. I ask for passwords only here, in our private chat.
group-password-exposed = ⚠️ You wrote what may be your password in a group, where I can't delete it. Delete it there now, then choose a new one with /password. I ask for passwords only here, in our private chat.
foreign-button-notice = This button belongs to someone else.
expired-button-notice = This button has expired.
question-over-notice = This question is over. The button cancelled nothing.
up-to-date-notice = Up to date.
busy-notice = I'm still busy with your earlier messages. Please press again in a moment.
flood = Your messages came faster than I can answer, so I skipped some of them. Please send again what is missing.
still-working = ❔ This is taking longer than usual, so I don't know yet how it ended. I'll update this message as soon as I know. Nothing is done twice.
interrupted = I was interrupted while I was working on your last message. Please check where things stand, and send it again if you still want it. Nothing is done twice.
old-message = That message reached me only now, so I did not act on it. Please send it again if you still want it.
duration-seconds =
    { $count ->
        [one] { $count } second
       *[other] { $count } seconds
    }
duration-minutes =
    { $count ->
        [one] { $count } minute
       *[other] { $count } minutes
    }
duration-hours =
    { $count ->
        [one] { $count } hour
       *[other] { $count } hours
    }

## The vault page
page-button = 🔐 Open my wallet's page
page-create-button = 🔐 Create my wallet
page-confirm-button = 🔐 Confirm
page-speed-up-button = ⏩ Speed up
page-recover-button = 🔑 Continue on my wallet's page
page-wanted = Please press the button, which opens the page of your wallet.
page-password-deleted = 🔐 I deleted your message in case it showed your password, and did not use it. Type your password only on your wallet's page, never in a chat.
page-missing = Your password is not used in this chat, and this service has not told me where your wallet's page is. Please ask its operator.
amount = { $amount }
amount-on = { $amount } on { $network }
list-next = { $start }, { $next }
list-last = { $start } and { $last }

## New passwords
password-small-talk = I'm waiting for a password, and that looks like an ordinary message. Please choose several words that don't belong together, or leave with /cancel.
password-too-short = That password is too short: it needs at least 10 characters. Please choose another one.
password-too-long = That password is too long: it can have at most 128 characters. Please choose another one.
password-guessable = That password is too easy to guess. Try several words that don't belong together.
password-unstable = Telegram's apps would change that password: some turn marks such as ** or __ or ` into formatting, or :) into an emoji, so it would not be the same on another device. Please choose one without them.

## /start
start-description = create or show your wallet
start-welcome =
    👋 <b>Welcome!</b> I give you an Ethereum wallet that you use by chatting, and that you can recover without a seed phrase.

    Choose a password with at least 10 characters and send it as your next message.

    <i>{ -not-encrypted } { -use-nowhere-else }</i>
start-welcome-on-page =
    👋 <b>Welcome!</b> I give you an Ethereum wallet that you use by chatting, and that you can recover without a seed phrase.

    You create it, and choose its password, on a page that opens here in Telegram. Your password never comes to this chat.
start-creating = ⏳ Creating your wallet…
start-created = 🎉 <b>Your wallet is ready.</b>
start-existing = <b>This is your wallet.</b>
start-made-by = Created on { $date } through a chat bot (access token “{ $token }”). If you did not create it yourself, someone else knows its password: don't receive money here, and tell the operator of this service.
start-wallet =
    { $title }
    <code>{ $address }</code>
    Network: { $network }

    { $hint }
start-has-username = Other users can send to you by your username, { $username }.
start-no-username = Set a username in Telegram's settings, and other users can send to you by it.
start-link-expired = This link has expired, or it is someone else's. Please send me the command here.
start-recovery-button = 🛟 How recovery works
start-recovery =
    🛟 <b>If you forget your password</b>
    Send /recover. After a waiting period you choose a new password. Your address and your money stay the same, and there is no seed phrase to keep. With an e-mail address (/contact) the wait is short.

    How it works: your private key is encrypted with your password, and the service keeps a second way to decrypt it, protected by a master key of its own. Every use of that key is recorded. This means that the service could open your wallet, and so could an attacker who takes over your Telegram account and stays unnoticed during the wait. Protect your account with Telegram's two-step verification.

## /balance
balance-description = your balance
balance-button = 💰 Balance
balance-refresh-button = 🔄 Refresh
balance-coin =
    💰 <b>{ $amount }</b>
    Network: { $network }
balance-unavailable = <b>{ $network }</b> is not responding right now, so I can't show your balance there.
balance-network-named = If you have enough on several networks, I ask which one to use. To choose one yourself, add it: <code>/send @bob 0.5 on { $network }</code>.
balance-coin-pending = Pending: sending up to { $amount }
balance-token = <b>{ $amount }</b>
balance-token-unknown = { $symbol }: not available right now
balance-token-pending = Pending: sending { $amount }

## /receive
receive-description = your address
receive-button = 📥 Receive
receive-copy-button = 📋 Copy address
receive-address =
    Your address on <b>{ $network }</b>:
    <code>{ $address }</code>

    Send only { $symbols } to this address, and only on this network.
receive-addresses =
    Your address, the same on each network:
    <code>{ $address }</code>
receive-network = On <b>{ $network }</b>: { $symbols }
receive-only = Send nothing else to this address, and on no other network.

## /send
send-description = send money: /send @bob 0.5
send-button = 📤 Send
send-confirm-button = ✅ Confirm
send-confirm-reassigned-button = ⚠️ Yes, it's them
send-cancel-button = ✖️ Cancel
send-speed-up-button = ⏩ Speed up
send-renew-button = 🔄 New quote
send-check-button = 🔎 Check
send-again-button = 🔁 Try again
send-explorer-button = 🔗 View in explorer
send-ask-recipient = Who do you want to send to? Send me a @username or an address.
send-ask-amount = How much { $symbol } do you want to send to { $recipient }? For example: { $examples }.
send-amount-examples = 0.5 or all
send-amount-examples-token = 0.5, or all, or 5 { $symbol }
send-ask-network = You have enough on { $networks }. Which network should I use? Choose one that the recipient supports: an exchange may not accept all of them.
send-ask-other-network = You have enough only on { $network } ({ $amount }). If the recipient can receive it there, write <code>{ $short }</code>. An exchange may not accept every network.
send-network-wanted = Please write the name of one of these networks: { $networks }.
send-unavailable = ⚠️ No answer from { $networks } right now, so I don't know what you have there.
send-looking-up = ⏳ Getting a quote…
send-person = <b>{ $name }</b>
send-person-unknown = that person
send-unknown-person = { $person } has no wallet here. They can get one by writing to me, or they can give you an address.
send-contact-unknown = That contact is not on Telegram, so I don't know their wallet. Please send me a @username or an address.
send-unknown-name = { $username } has no wallet here. They can get one by writing to me, or they can give you an address.
send-name-reassigned = ⚠️ { $username } no longer belongs to the person who registered it here. Nothing was sent. Ask them for their new username or their address.
send-name-unverified-notice = ⚠️ Telegram could not confirm who owns that username right now. Nothing was sent. Try again in a minute, or send to an address.

send-quote =
    <b>Send { $amount }</b>
    to { $recipient }
    <code>{ $address }</code>
    { $member } { $earlier }

    Network fee: usually { $usual }, at most { $fee }
    Total: up to <b>{ $total }</b>
    Network: { $network }
send-recipient-named = <b>{ $name }</b>, { $username }
send-recipient-address = this address
send-member-since = Wallet here since { $date }.
send-not-a-member = Not a wallet of this service.
send-first-payment = You have never sent to this address on this network.
send-paid-before = You have sent to this address before.
send-total-coin = { $amount }
send-total-token = { $amount } and { $fee }
send-warning-contract = ⚠️ The recipient is a smart contract. Make sure that it can accept what you send.
send-warning-most-of-balance = ⚠️ This is most of your { $symbol } on { $network }.
send-warning-reassigned = ⚠️ This username belonged to someone else until recently. Ask the recipient whether it is really theirs.
send-warning-fee-high = ⚠️ The network fee is more than a tenth of the amount.
send-warning-fee-above-amount = ⚠️ The network fee is more than the amount you send.
send-warning-lookalike = 🚨 You have paid another address that looks almost like this one, but never this one. Scammers make such addresses. Compare every character.
send-speed-up =
    <b>Speed up: { $what }</b>
    The same payment is signed again with a higher network fee. Only one of the two can go through.

    Network fee: usually { $usual }, at most { $fee }
send-speed-up-cancellation =
    <b>Speed up the cancellation of { $what }</b>
    It is signed again with a higher network fee.

    Network fee: usually { $usual }, at most { $fee }
send-ask-password =
    { $quote }

    🔑 To confirm, send your password as your next message.
send-ask-reassigned =
    { $quote }

    ✋ Are you sure that this is the person you mean?
send-wrong-password =
    { $quote }

    ❌ Wrong password. Send it again, or cancel.
send-sending =
    { $quote }

    ⏳ Sending…
send-refused =
    { $quote }

    ❌ { $reason }
send-refused-for-now =
    { $quote }

    ❌ { $unchanged } { $reason }
send-nothing-sent = Nothing was sent.
send-waits-as-before = The payment waits as before.
send-unknown-outcome =
    { $quote }

    ❔ The wallet service is not responding, so I don't know yet whether this was sent. It is never sent twice. I'll update this message as soon as I know, or press { send-check-button }.
send-changed = ⚠️ This payment is not the one you were shown. Nothing was sent. Please start again with /send.

transfer-address = <code>{ $address }</code>
transfer-username = { $username }
transfer-what = <b>{ $amount }</b> to { $recipient }
transfer-pending =
    📤 Sent { $what }
    { $reason }
transfer-waits-for-network = Pending: waiting for the network.
transfer-waits-replaced = Pending: the network is busy, so I increased the network fee, within the maximum fee you confirmed.
transfer-waits = Waiting since { $time }: { $reason } It is never sent twice.
transfer-cancelling = Cancelling: the network decides now whether your payment or its cancellation comes first.
transfer-cancelling-waits = Cancelling, waiting since { $time }: { $reason }
transfer-wait-fee = the network asks for more than the maximum fee you confirmed. It goes through when fees fall.
transfer-wait-funds = your balance on this network no longer covers it. It goes through when you have enough.
transfer-wait-earlier = an earlier payment of yours has to go through first. If you sent that one from another app with this wallet's key, your next payment here replaces it.
transfer-wait-chain = the network is not making progress right now.
transfer-wait-refused = the network does not accept this payment as it was signed.
transfer-reopened = ⚠️ This payment is no longer confirmed, because the network dropped its block. I'll write to you when it is confirmed or cancelled.
transfer-superseded-message = { $what }: the network dropped the block with this payment. See my newer message for its status.
transfer-confirmed = ✅ Confirmed: { $what }
transfer-received-less = The token kept a part of it: { $amount } arrived.
transfer-block = Block { $number }
transfer-fee = Network fee: { $fee }
transfer-superseded-by = Transaction that took its place: <code>{ $hash }</code>
transfer-hash = Transaction <code>{ $hash }</code>
transfer-nothing-moved = ❌ Failed: { $what }. The token's contract accepted the transaction but moved no money. Check your /balance; the network fee was charged.
transfer-nonce-taken = ❌ Failed: { $what }. Your wallet's key was used outside this service, and that transaction took its place. This payment was not made.
transfer-reverted-recipient = ❌ Failed: the recipient's contract refused { $what }. The money is still yours; the network fee was charged.
transfer-reverted-token = ❌ Failed: the token's contract refused { $what }. The money is still yours; the network fee was charged.
transfer-failed = ❌ Failed: { $what }. Check your /balance.
transfer-cancelled = ✖️ Cancelled: { $what }. Nothing was sent.
transfer-cancelled-on-chain = ✖️ Cancelled: { $what }. The money is still yours; the network fee of the cancellation was charged.
transfer-expired = ⌛ This quote has expired: { $what }. Nothing was sent.
transfer-unknown = { $what }: see /history for its status.

transfer-pending-status = pending
transfer-waiting-status = waiting
transfer-cancelling-status = being cancelled
transfer-confirmed-status = confirmed
transfer-arriving-status = arriving
transfer-failed-status = failed
transfer-cancelled-status = cancelled
transfer-expired-status = expired
transfer-unknown-status = unknown

## /history
history-description = your payments
history-button = 📜 History
history-newer-button = ◀ Newer
history-older-button = Older ▶
history-empty = No payments yet.
history-title = <b>Your payments</b>
history-sent = 📤 { $amount } to { $recipient }
history-received = 📥 { $amount } from { $sender }
history-received-unnamed = 📥 { $amount } received
history-received-small = 📥 { $amount } in { $count } small deposits
history-entry =
    { $what }
    { $time } · { $status }
history-status = { $status }
history-link = <a href="{ $link }">{ $status }</a>
history-deposit-status = deposit

## /limit
limit-description = how much you can spend in a day
limit-title = <b>Your spending limits in 24 hours</b>
limit-network = <b>{ $network }</b>
limit-spent = { $limit }, { $spent } spent
limit-later = From { $time }: { $limit }. To cancel this: <code>{ $command }</code>
limit-amount = up to { $amount }
limit-none = { $symbol }: no limit
limit-on-page = 📈 You request a higher limit on your wallet's page. It applies after 24 hours; nothing was changed yet.
limit-help = Network fees count too. Set your limit with <code>/limit 5</code> or remove it with <code>/limit none</code>; for a token, add its symbol, as in <code>/limit 5 USDC</code>. A lower limit applies at once, a higher one after 24 hours. The service may have a limit of its own.
limit-help-network = This sets your limit on { $primary }. For another network, name it: <code>/limit 5 on { $network }</code>.

## /freeze
freeze-description = freeze your wallet at once
freeze-now-button = 🧊 Freeze my wallet
freeze-lift-button = 🔓 Unfreeze
freeze-stay-button = 🔒 This wasn't me: cancel it
freeze-stayed = 🔒 The request was cancelled. Your password still belongs on the page only.
freeze-keep-button = 🧊 Keep it frozen
freeze-notice-button = 🧊 This wasn't me: freeze my wallet
freeze-ask =
    🧊 <b>Freeze your wallet?</b>
    Use this if someone else may have your password, or may be using your Telegram account. It works at once and needs no password.

    <b>What stops:</b> sending, speeding up payments, exporting the key, and changing the password, the e-mail address or the mobile number. A password reset is cancelled. Payments that are not in a block yet are cancelled if the network allows it.

    <b>What still works:</b> receiving, /balance and /history.

    <b>To unfreeze:</b> send /freeze again with your password. It takes a day, in which you can change your mind.
freeze-frozen = 🧊 <b>Your wallet is frozen.</b> Nothing can be sent from it, its key cannot be exported, and its password cannot be changed or reset. It can still receive. To unfreeze it, you need your password and a day's wait.
freeze-lifting = ⏳ Your wallet is still frozen. It unfreezes on { $time }, unless you or someone with the link from our e-mails keeps it frozen.
freeze-by-operator = 🧊 The operator of this bot froze your wallet, and only the operator can unfreeze it. It can still receive.
freeze-ask-password =
    🔓 Send your wallet's password to unfreeze it. It stays frozen for a day, and I'll write to you then.

    <i>{ -not-encrypted }</i>
freeze-on-page = 🔓 You request to unfreeze your wallet on its page, with your password. It stays frozen for a day, and I'll write to you then.
freeze-working = ⏳ Checking your password…

## /password
password-description = change your password
password-ask =
    🔐 <b>Change your password</b>
    Send both passwords in one message: the current one on the first line, the new one on the second.

    <i>{ -not-encrypted } { -use-nowhere-else }</i>
password-on-page = 🔐 You change your password on your wallet's page. I'll write to you here when it was changed.
password-two-lines = Send both passwords in one message: the current one on the first line, the new one on the second.
password-unchanged = The new password is the same as the current one. Please choose another one.
password-changing = ⏳ Changing your password…
password-changed = ✅ Your password was changed. The old one no longer works. If this wasn't you, someone knows your password and is using your Telegram account: freeze your wallet, and end their session in Telegram's settings.
password-change-unknown = ❔ The wallet service did not respond, so I don't know whether your password was changed. Try the new one first; if it is wrong, the old one still works.

## /recover
recover-description = reset a forgotten password
recover-start-button = 🛟 Reset my password
recover-set-button = 🔑 Set a new password
recover-stop-button = ✖️ This wasn't me: cancel
recover-ask =
    🛟 <b>Forgot your password?</b>
    The service can open your wallet with its own key and protect it with a new password. Your address and your money stay the same.

    To protect you from thieves, there is a waiting period. I'll notify you of each step, here and by e-mail if you added an address. You can cancel at any time: with a button, or just by using your current password.
recover-over = That password reset is over. Send /recover to see where things stand.
recover-code-format = The code has 8 digits. Send it as it is written in the e-mail.
recover-ask-password =
    🔑 Send the new password for your wallet as your next message. The old one will stop working.

    <i>{ -not-encrypted } { -use-nowhere-else }</i>
recover-on-page = 🔑 You set your new password on your wallet's page. The old one will stop working.
recover-working = ⏳ Recovering your wallet…
recover-done =
    ✅ Your wallet is recovered, and your new password works. Your address is the same:
    <code>{ $address }</code>

    If this wasn't you, someone is using your Telegram account: freeze your wallet now, and end their session in Telegram's settings.

## /contact
contact-description = your e-mail address and mobile number
contact-add-button = ✉️ Add e-mail
contact-change-button = ✉️ Change e-mail
contact-remove-button = 🗑 Remove e-mail
contact-address = ✉️ Your e-mail address is { $email }, added on { $time }. Security alerts are sent there, and it shortens the wait if you forget your password.
contact-none = ✉️ You have not added an e-mail address. With one you also get security alerts by e-mail, and the wait is short if you forget your password. Other users cannot see it.
contact-ask-address = ✉️ What is your e-mail address? Send it as your next message, and I'll send a code there.
contact-on-page = ✉️ You add, change or remove your e-mail address on your wallet's page, with your password. I'll write to you here when it was changed.
contact-address-format = I can't read that address. It should look like name@example.org.
contact-ask-password-new =
    ✉️ Your new e-mail address will be { $email }.

    🔑 To confirm, send your password as your next message.
contact-ask-password-remove =
    ✉️ Your e-mail address will be removed.

    🔑 To confirm, send your password as your next message.
contact-working = ⏳ One moment…
contact-ask-code = ✉️ I sent a code to { $email }. Send it to me as your next message.
contact-changed = ✅ The code is correct, and your e-mail address was changed.
contact-removed = ✉️ Your e-mail address was removed.
contact-offer =
    One more thing: how can you be reached outside Telegram?

    ✉️ With an <b>e-mail address</b> you also get security alerts by e-mail, and the wait is short if you forget your password.
    📱 With your <b>mobile number</b> the operator of this service can reach you if you lose your Telegram account. It never unlocks or recovers your wallet.

    Both are optional, stored encrypted, and never shown to other users. You can add or remove them at any time with /contact.
contact-later-button = Not now
contact-later = You can add your e-mail address or mobile number at any time with /contact.
contact-mobile = 📱 Your mobile number is { $mobile }. The operator of this service can reach you there if you lose your Telegram account. It never unlocks or recovers your wallet.
contact-mobile-none = 📱 You have not added a mobile number. With one, the operator of this service can reach you if you lose your Telegram account. It never unlocks or recovers your wallet, and other users cannot see it.
contact-mobile-button = 📱 Add mobile number
contact-mobile-remove-button = 🗑 Remove mobile number
contact-mobile-share-button = 📱 Share my number
contact-ask-mobile = 📱 Press the button below to share the number of your Telegram account. I store it encrypted and show only its last two digits.
wanted-mobile = Please press the button that shares your number. I don't accept a number that is typed, because it could be someone else's.
contact-mobile-foreign = That is someone else's number. Please press the button that shares your own.
contact-mobile-format = I can't read that number, so I did not store it.
contact-mobile-added = 📱 Your mobile number { $mobile } was added.
contact-mobile-cancelled = No mobile number was added.
contact-mobile-late = I was no longer waiting for your number, so I did not store it. Send /contact to add it.
contact-mobile-removed = 📱 Your mobile number was removed.

## /export
export-description = export your wallet's key
export-on-page =
    🔑 <b>Export your wallet's private key?</b>
    With it you can use your wallet in another app. Anyone who has it can spend everything, now and later, without me. You almost never need it.

    You get it on your wallet's page, with your password: a file and its passphrase. Keep the two apart, and send neither to anyone, not even here.

## /support
support-description = a code for the operator, if something went wrong
support-code = If something went wrong, send this code to the operator of this bot: <code>{ $code }</code>. It finds your last message in the logs. It holds nothing secret.
support-none = I have not handled a message of yours since I was last started. Do again what went wrong, then send /support.

## /cancel and /help
cancel-description = cancel the current step
cancel-button = ✖️ Cancel
cancel-done = Cancelled. Nothing was changed.
cancel-nothing = There is nothing to cancel.
help-description = this list
help-title = <b>What I can do</b>
help-entry = /{ $command } – { $description }
help-examples = Send with <code>/send @bob 0.5</code> or <code>/send 0x… 0.1</code>, or send everything with <code>/send @bob all</code>. For a token, add its symbol after the amount: <code>/send @bob 5 USDC</code>. Nothing is sent until you confirm it with your password.

## Notices of events
notice-arriving = 📥 <b>{ $amount }</b> from { $sender } is arriving. It is in a block but not final yet: this message changes when it is.
notice-received-reopened = ⚠️ <b>{ $amount }</b> from { $sender } is no longer confirmed, because the network dropped its block. It may still arrive: I'll write to you when it does.
notice-received-what = <b>{ $amount }</b> from { $sender }
notice-taken-back = ❌ <b>{ $amount }</b> from { $sender } did not arrive: the payment was taken back. It is not in your balance.
notice-received = 📥 You received <b>{ $amount }</b> from { $sender }.
notice-received-unnamed = 📥 You received <b>{ $amount }</b>. The sender is not shown: it came through a contract, or is a small deposit.
notice-received-small = 📥 You received { $count } small deposits in one day: <b>{ $amount }</b> in total.
notice-received-many =
    📥 You received { $count ->
        [one] { $count } payment
       *[other] { $count } payments
    }.
notice-received-total = <b>{ $amount }</b> in total
notice-received-largest = The largest: { $amount } from { $sender }
notice-missed = 👋 Welcome back. This happened while you had blocked me:
notice-missed-more =
    { $count ->
        [one] One more notice about your wallet's security came before these, and I no longer have it.
       *[other] { $count } more notices about your wallet's security came before these, and I no longer have them.
    } Please check /contact, /limit and /freeze. If anything there was not your doing, freeze your wallet.
notice-missed-payments =
    📥 { $count ->
        [one] { $count } payment to you arrived or is arriving. /history shows whether it is final.
       *[other] { $count } payments to you arrived or are arriving. /history shows which are final.
    }
notice-password-changed = 🔐 Your password was changed on { $time }. If this wasn't you, someone knows your password and is using your Telegram account: end their session in Telegram's settings, then send /recover.
notice-key-exported =
    🔑 Your wallet's private key was exported on { $time }. With that file and its passphrase, anyone can spend everything in this wallet, now and later, without me. If this was you, keep the two in different places.

    If this was <b>not you</b>, a new password does not help, because the key is no longer secret. Create a wallet in another app now and send everything to its address: <code>/send 0x… all</code>, and the same for each token. Then end all other sessions in Telegram's settings.
notice-email-change-requested = ✉️ Someone used your password to request a change of your e-mail address. If this wasn't you, change your password with /password.
notice-email-changed = ✉️ Your e-mail address was changed. If this wasn't you, someone knows your password: change it with /password.
notice-account-frozen = 🧊 Your wallet was frozen on { $time }. Nothing can be sent from it. Send /freeze to see how it is unfrozen.
notice-unfreeze-requested = 🔓 Someone used your password on { $time } to request that your wallet is unfrozen. It stays frozen for now; send /freeze to see until when. If this wasn't you, keep it frozen, and end the other sessions in Telegram's settings.
notice-page-leave-requested = 🔓 Someone used your password on { $time } to request that your wallet can be used here in the chat again, and not on its page alone. Nothing changes for a day. If this wasn't you, cancel it, and end the other sessions in Telegram's settings.
notice-page-leave-cancelled = 🔒 The request to use your wallet in the chat was cancelled on { $time }. Your password still belongs on the page only.
notice-page-left = 🔓 Since { $time } your wallet can be used here in the chat again. The next time you enter your password on the page, it is bound to the page again.
notice-unfreeze-cancelled = 🧊 The request to unfreeze your wallet was cancelled on { $time }. It stays frozen.
notice-account-unfrozen = 🔓 Your wallet was unfrozen on { $time } and can send again.
notice-limit-raise-requested = 📈 A higher spending limit was requested on { $time }. It applies after 24 hours at the earliest. If this wasn't you, someone is using your Telegram account: send /limit, which shows the command that cancels the change at once, and end their session in Telegram's settings.
notice-recovery-requested =
    🛟 A password reset for your wallet was requested on { $requested }.

    { $next }
notice-recovery-code-sent = I sent a code to { $email }. Send it to me as your next message by { $until }, and the wait is short. Without the code it lasts until { $ready }.
notice-recovery-code-on-page = I sent a code to { $email }. Enter it on your wallet's page by { $until }, and the wait is short. Without the code it lasts until { $ready }.
notice-recovery-waiting = You can set a new password from { $ready }. I'll write to you then.
notice-recovery-confirmed = 🛟 The code was correct: you can set a new password from { $ready }. I'll write to you then.
notice-recovery-ready = 🛟 The wait is over. You can set a new password for your wallet until { $until }.
notice-recovery-completed = 🔐 Your wallet was recovered with a new password on { $time }. If this wasn't you, someone is using your Telegram account: freeze your wallet now, and end their session in Telegram's settings.
notice-recovery-cancelled = ✖️ The password reset was cancelled. Your password has not changed.
notice-move = 🚚 The operators of this service were asked to move your wallet to another Telegram account (Telegram user { $to }), as for owners who lost theirs. They can do it from { $ready } until { $until }. If you did not ask for it, cancel it now.
notice-moved = 🚚 Your wallet was moved to another Telegram account on { $time }, and can no longer be used from here. If you did not ask for it, write to the operator of this service.
notice-move-over = ✖️ Your wallet stays here: its move to another Telegram account was cancelled, or has expired.
notice-recovery-expired = ⌛ The time to set a new password has passed, and nothing was changed. Send /recover to start again.

## Refusals of the wallet service
problem-unreachable = I can't reach the wallet service right now. Please try again in a minute.
problem-telegram = Telegram did not deliver my answer. Please try again.
problem-internal = Something went wrong on our side. Please try again in a minute.
problem-busy = The service is busy. Please try again in a minute.
problem-wrong-password = Wrong password. Please try again, or leave with /cancel.
problem-password-locked = Too many wrong passwords. Try again in { $wait }.
problem-rate-limited = Too many requests. Try again in { $wait }.
problem-wrong-code = That code is wrong. Please send it again.
problem-code-expired = That code is no longer valid.
problem-no-recovery = There is no password reset in progress. Send /recover to start one.
problem-recovery-not-ready = The waiting period is not over yet. Try again in { $wait }.
problem-recoveries-paused = Passwords cannot be reset right now, because too many resets were requested at once. Your money is safe; please try again later.
problem-on-hold = Your wallet was recovered recently. For your safety, this is possible again in { $wait }. Until then you can still send to everyone you paid before the recovery.
problem-no-mail = This service does not send e-mail.
problem-frozen = Your wallet is frozen. Send /freeze to see how it is unfrozen.
problem-page-required = Your password is used on your wallet's own page alone, not in this chat. Please open the page.
problem-account-exists = You already have a wallet, with a different password. Send /start to see it.
problem-network = The network
problem-chain-unavailable = { $network } is not responding right now. Please try again in a minute.
problem-chain-contradicted = What the network reports right now does not include an earlier payment of yours that was final. Nothing was sent; please try again later.
problem-prices-unconfirmed = The network's fee cannot be confirmed right now. Nothing was sent. Please try again in a minute.
problem-self-transfer = That is your own wallet.
problem-insufficient-token = You don't have enough on { $network }: { $amount } more is needed.
problem-insufficient-coin = You don't have enough on { $network }: { $amount } more is needed, including the network fee.
problem-insufficient = You don't have enough.
problem-limit-coin = Your limit on { $network } is { $limit } in 24 hours, network fees included, and { $left } of it is left. { $when } Send /limit to see or change it.
problem-limit-token = Your limit on { $network } is { $limit } in 24 hours, and { $left } of it is left. { $when } Send /limit to see or change it.
problem-limit-possible-at = This payment is possible from { $time }.
problem-limit-never = This payment is more than your limit.
problem-limit = This is more than you can spend in 24 hours.
problem-too-many-in-flight = Too many of your payments are still pending. Please try again when one of them is confirmed, or cancel one.
problem-fee-too-high = The network asks for a higher fee than this service allows. Nothing was sent. Please try again later.
problem-would-revert = The payment would fail: the recipient is a smart contract that would refuse it.
problem-token-refuses = This token refuses the payment. It may be paused, or it may have blocked you or the recipient. Other payments are not affected.
problem-payments-paused-on = Payments on { $network } are paused right now. Nothing was sent, and your money is safe; please try again later.
problem-payments-paused = Payments are paused right now. Nothing was sent, and your money is safe; please try again later.
problem-payment-refused = This service does not allow this payment. Nothing was sent; please ask the operator of this bot.
problem-token-mismatch = This token cannot be sent here at the moment, because it was changed by its issuer. Your balance of it is not lost; please ask the operator of this bot.
problem-quote-expired = This quote has expired. Nothing was sent.
problem-name-unproved = ⚠️ This username belonged to someone else until recently. By name it can be paid a day after its new owner took it, or once they open the page of their wallet. Nothing was sent. Ask them for their address.
problem-unknown-chain = This service no longer works with that network. Nothing was sent. Send /balance to see its networks.
problem-unknown-token = That token is not available here.
problem-conflict = That was changed a moment ago. Please try again.
problem-wrong-state = This is no longer possible.
problem-other = { $detail }.

## Input that cannot be parsed
input-recipient-unmarked = Please write a @username, or an address that begins with 0x.
input-send-words = Please write who and how much, for example <code>/send @bob 0.5</code>.
input-second-recipient = I can send to one recipient at a time. Please write who and how much, for example <code>/send @bob 0.5</code>.
input-limit-words = Please write how much per day, for example <code>/limit 5</code> or <code>/limit none</code>.
input-unknown-word = I don't know “{ $word }”. You can send { $known }. If it is a username, write it with its @.
input-unknown-amount = I don't know “{ $word }”. Please write the amount in digits, for example <code>0.5</code>, or write <code>all</code>. You can send { $known }.
input-unknown-rest = I don't know “{ $word }”. You can send { $known }, and nothing else goes after the amount.
input-unknown-network = I don't know the network “{ $word }”. You can send on { $known }.
input-network-as-recipient = “{ $word }” is a network. To send on it, write <code>on { $network }</code>; to pay the user with that name, write <code>@{ $word }</code>.
input-two-networks = That is on two networks: { $one } and { $other }. An address may be marked for one of them. Nothing was sent: please name only the network that the recipient uses.
input-network-needed = { $symbol } is on { $known }. Please add the network, for example <code>on { $network }</code>.
input-unknown-asset = I don't know “{ $word }”. The assets here are { $known }.
input-amount-empty = Please write an amount, for example <code>0.5</code>.
input-amount-comma = Please use a decimal point and no commas, for example <code>0.5</code>.
input-amount-sign = Please write the amount without a sign, for example <code>0.5</code>.
input-amount-exponent = Please write the amount in full, without an exponent, for example <code>0.0001</code>.
input-amount-separator = Please write the digits together, for example <code>1000</code>.
input-amount-joined = “{ $word }” can be read in two ways. Please put a space between the amount and the token, for example <code>5 { $symbol }</code>.
input-amount-currency = Please write the amount in coins or tokens, without a currency sign, for example <code>0.5</code>.
input-amount-hexadecimal = An amount does not start with 0x. Please write it in ordinary digits, for example <code>0.5</code>.
input-amount-format = Please write the amount in digits with at most one decimal point, for example <code>0.5</code>.
input-amount-zero = The amount must be more than zero.
input-amount-precision =
    { $count ->
        [0] This amount cannot have decimals.
        [one] This amount can have at most { $count } decimal.
       *[other] This amount can have at most { $count } decimals.
    }
input-amount-too-large = That amount is larger than any that exists.
input-address-format = An address is 0x followed by 40 hexadecimal digits.
input-address-checksum = There is a typo in that address: its checksum does not match. Please copy it again.
input-link = That link does not lead to a person. Please write a @username or an address.
input-other-network = That address is marked for another network. I can't send there, and money sent on the wrong network could be lost. Please ask the recipient for an address on a network that /receive lists.
input-named-network = That is an address on { $network }. I can't send there, and money sent on the wrong network could be lost. Please ask the recipient for an address on a network that /receive lists.
input-email = That is an e-mail address, and I can't send money to one. Please write a @username or an address.
input-phone = That is a phone number, and I can't find a person by it. Please write a @username or an address. Or send /send, and when I ask for the recipient, share their contact with me.
input-joined-amount = Please put a space between the username and the amount, for example <code>@bob 0.5</code>.
input-payment-request = That is a payment request with more in it than an address. Please send me the address alone, and the amount.
input-hash = That has 64 digits, so it is a transaction or a private key, not an address. An address has 40. Never send a private key to anyone, and not to me either.
input-ens = ENS names are not supported yet. Please write a @username or an address.
input-username-empty = Please write a username.
input-username-long = A username has at most 32 characters.
input-username-start = A username starts with a letter from a to z.
input-username-characters = A username has only letters, digits and single underscores between them.
