-- Amounts and gas prices are decimal text, because they exceed 64 bits. Ids are lower-case UUIDs,
-- addresses lower-case hex, times milliseconds since 1970. `mac_key` and `mac` are the id of the
-- row-MAC key and the MAC (FORMAT.md, "Server keys").

create table accounts (
    id text primary key,
    telegram_id bigint not null unique,
    state text not null,
    -- When the owner's freeze is lifted, if the owner requested that.
    unfreezes_at bigint,
    -- Sealed.
    mobile bytea,
    email bytea,
    email_verified_at bigint,
    -- The trusted address before the last change, sealed, until the present one is trusted.
    former_email bytea,
    former_email_until bigint,
    -- When the last recovery was completed.
    recovered_at bigint,
    -- Since when no bearer token may act for the owner where a password or a recovery is needed.
    page_only_since bigint,
    -- When that ends, if the owner requested it on the page.
    page_only_until bigint,
    -- The name of the bearer token that made it; null if the owner did on the page.
    created_by text,
    created_at bigint not null,
    -- Counts the writes of this row, from 1. The audit holds the newest: an older copy is refused.
    revision bigint not null,
    mac_key integer not null,
    mac bytea not null
);

create index accounts_unfreezing on accounts (unfreezes_at) where unfreezes_at is not null;
create index accounts_leaving on accounts (page_only_until) where page_only_until is not null;

-- Covered by the MAC of the account.
create table wallets (
    account_id text primary key references accounts (id),
    address text not null unique,
    public_key bytea not null,
    sealed_key bytea not null,
    kdf text not null,
    salt bytea not null,
    password_version integer not null,
    pepper_id integer not null,
    commitment bytea not null,
    sck_id text not null unique,
    -- Of the copy in the key database (FORMAT.md, "Wrapped SCK").
    wrapped_hash bytea not null,
    version bigint not null
);

-- The history of all claims on usernames. An active claim has no end.
create table names (
    id bigint generated always as identity primary key,
    telegram_id bigint not null,
    canonical text not null,
    -- As its holder spells it.
    shown text not null,
    -- Its place among the usernames of its holder. The lowest is shown.
    position integer not null,
    claimed_at bigint not null,
    seen_at bigint not null,
    -- When Telegram signed last that the holder has it.
    proved_at bigint,
    -- Whether another Telegram user held the name before.
    reassigned boolean not null,
    ended_at bigint,
    -- The digest of the claim before it (FORMAT.md, "Row `names`").
    previous bytea not null,
    -- Raised when a claim on the username begins or ends. The audit has the newest.
    revision bigint not null,
    mac_key integer not null,
    mac bytea not null
);
-- A claim has one successor, also if two are made at once.
create unique index names_one_chain on names (canonical, previous);
create unique index names_one_holder on names (canonical) where ended_at is null;
create index names_of_holder on names (telegram_id) where ended_at is null;
create index names_history on names (canonical);

-- The time of the newest update processed for each Telegram user: older updates are ignored.
create table name_observations (
    telegram_id bigint primary key,
    seen_at bigint not null,
    -- That of the newest one that Telegram signed.
    proved_at bigint
);

create table transfers (
    id text primary key,
    chain_id bigint not null,
    from_account text not null references accounts (id),
    from_username text,
    from_address text not null,
    from_since bigint,
    to_account text references accounts (id),
    to_username text,
    to_address text not null,
    to_since bigint,
    asked_to text not null,
    asked_amount text not null,
    -- Contract, decimals and symbol as configured at the time of the quote; null for the native
    -- coin.
    token text,
    value text not null,
    gas_limit bigint not null,
    -- The usual price per gas, and the prices of each step of the fee ladder.
    ladder text not null,
    warnings text not null,
    client_ref text,
    state text not null,
    failure text,
    nonce bigint,
    -- True; null once another transfer may take the nonce, because the block that used it was
    -- removed after the signed bytes had been erased. Nulls are distinct in the unique index.
    nonce_held boolean default true,
    tx_hash bytea,
    block bigint,
    fee text,
    -- The units received, where a token kept a part of the transfer.
    arrived text,
    created_at bigint not null,
    expires_at bigint not null,
    -- Since when its cancellation replaces it.
    cancel_requested_at bigint
);
-- The history. A transfer is signed once it has a hash.
create index transfers_sent on transfers (from_account, created_at) where tx_hash is not null;
create index transfers_received on transfers (to_account, created_at)
    where state in ('mined', 'final');
-- The addresses that an account has paid, by the digits that people compare.
create index transfers_paid on transfers
    (from_account, (substr(to_address, 3, 4) || substr(to_address, 39, 4)), to_address, chain_id)
    where state in ('mined', 'final');
-- Quotes that were not signed, which are deleted.
create index transfers_unsigned on transfers (created_at) where tx_hash is null;
-- What a wallet paid and received in a range of blocks.
create index transfers_sent_in on transfers (from_address, chain_id, block)
    where block is not null;
create index transfers_received_in on transfers (to_address, chain_id, block)
    where block is not null;
create unique index transfers_one_per_nonce
    on transfers (chain_id, from_address, nonce, nonce_held)
    where nonce is not null;

-- The transaction in a block that has the nonce of a transfer. One that pays makes the transfer
-- `mined`; every other one changes its state when the block is final.
create table settlements (
    transfer_id text primary key references transfers (id),
    chain_id bigint not null,
    block bigint not null,
    block_hash bytea not null,
    tx_hash bytea not null,
    outcome text not null,
    -- At most the fee that the sender confirmed.
    fee text not null,
    final_at bigint,
    -- Until when the signed bytes are kept; null before the block is final, and when they are
    -- erased.
    bytes_until bigint,
    -- False once the transactions that were signed and did not get into the block are deleted.
    has_attempts boolean not null default true
);
create index settlements_with_attempts on settlements (final_at) where has_attempts;
create index settlements_of_block on settlements (chain_id, block);
create index settlements_not_final on settlements (chain_id, block) where final_at is null;
create index settlements_with_bytes on settlements (bytes_until) where bytes_until is not null;

-- The transfers that are signed and in no block, with the time of their next check and the number
-- of checks so far.
create table transfer_checks (
    transfer_id text primary key references transfers (id),
    chain_id bigint not null,
    next_at bigint not null,
    done integer not null
);
create index transfer_checks_due on transfer_checks (chain_id, next_at);

-- One row for each transaction that was signed for a transfer: the steps of its fee ladder, then
-- the cancellation. Prices rise with `step`. `sealed` holds the signed bytes, encrypted; it is
-- erased some days after a transaction with the nonce is final. `sent_block` is the latest block
-- when it was sent.
create table signed_transactions (
    transfer_id text not null references transfers (id),
    step integer not null,
    kind text not null,
    fees text not null,
    tx_hash bytea not null,
    sealed bytea,
    sent_at bigint,
    sent_block bigint,
    primary key (transfer_id, step)
);

-- Why transfers that are not mined wait.
create table transfer_waits (
    transfer_id text primary key references transfers (id),
    reason text not null,
    since bigint not null
);

-- The requests to sign a transfer again at higher prices, by the ids that clients chose.
create table replacements (
    id text primary key,
    transfer_id text not null references transfers (id),
    at bigint not null
);
create index replacements_of_transfer on replacements (transfer_id);

-- Amounts that count towards the daily spending limits: inserted with the signature, zero if the
-- transfer fails, deleted after some days. `asset` is the chain id, a slash, and `native` or the
-- token's contract.
create table spends (
    transfer_id text primary key references transfers (id),
    account_id text not null references accounts (id),
    asset text not null,
    units text not null,
    -- In wei, counted towards the limit of the chain's native coin: the signed maximum until the
    -- transfer is final, then the fee paid.
    fee text not null,
    -- The fee of a transfer that a block does not pay: all that counts once the block is final.
    unpaid_fee text,
    at bigint not null,
    mac_key integer not null,
    mac bytea not null
);
create index spends_of_account on spends (account_id, at);
create index spends_to_delete on spends (at);

-- Limits that owners set, `asset` as in `spends`. A raised limit is kept in `later` and applies
-- from `later_at` on.
create table spending_limits (
    account_id text not null references accounts (id),
    asset text not null,
    units text not null,
    later text,
    later_at bigint,
    -- Raised by every change. The audit has the newest.
    revision bigint not null,
    mac_key integer not null,
    mac bytea not null,
    primary key (account_id, asset)
);

-- The last finalized block that was scanned for external deposits.
create table chain_cursors (
    chain_id bigint primary key,
    block bigint not null,
    block_hash bytea not null,
    -- The last block that was settled, final or not.
    tip_hash bytea not null,
    -- When a server read the head of the chain last; zero before that.
    read_at bigint not null,
    -- How often it was moved back.
    rewinds bigint not null default 0
);

-- The native coin that each wallet had at a final block: what it has more at a later one, and no
-- known payment explains, arrived inside a contract call. A row without a balance has none to
-- compare with, and so has one that was read before the cursor was moved back.
create table wallet_balances (
    chain_id bigint not null,
    account_id text not null references accounts (id),
    block bigint not null,
    balance text,
    rewinds bigint not null,
    -- When coin was last received, sent or asked about.
    active_at bigint not null,
    next_at bigint not null,
    primary key (chain_id, account_id)
);
create index wallet_balances_due on wallet_balances (chain_id, next_at);

-- Deposits that this system did not send. Those below `chain.notice_from` are summed up: each of
-- them refers to the digest of its account, asset and day, a row without transaction and sender.
-- Coin that arrived inside a contract call has neither of them as well, and no day.
create table external_deposits (
    id text primary key,
    chain_id bigint not null,
    tx_hash bytea,
    account_id text not null references accounts (id),
    from_address text,
    -- Of a digest, the sum, the newest block, and how many it sums up.
    value text not null,
    block bigint not null,
    count bigint not null,
    digest_id text references external_deposits (id),
    -- Of a digest, its day, counted from 1970, and when it is to be notified, until it was.
    digest_day bigint,
    digest_due_at bigint,
    -- The contract of a token; empty, without symbol and decimals, for the native coin.
    token text not null,
    symbol text,
    decimals integer,
    recorded_at bigint not null
);
create index external_deposits_of_account on external_deposits (account_id, recorded_at)
    where digest_id is null;
-- One transaction can pay several accounts, in several tokens.
create unique index external_deposits_once
    on external_deposits (chain_id, tx_hash, account_id, token);
create index external_deposits_of_block on external_deposits (account_id, chain_id, block);
create unique index external_deposits_one_digest
    on external_deposits (account_id, chain_id, token, digest_day) where digest_day is not null;
create index external_deposits_due on external_deposits (digest_due_at)
    where digest_due_at is not null;

create table recoveries (
    id text primary key,
    account_id text not null references accounts (id),
    stage text not null,
    code text not null,
    code_until bigint,
    code_tries integer not null,
    -- The version of the codes key of its code and link.
    codes_key integer not null,
    -- The Telegram account to which the wallet is moved; null for a new password.
    moves_to bigint,
    requested_at bigint not null,
    ready_at bigint not null,
    expires_at bigint not null,
    version bigint not null,
    mac_key integer not null,
    mac bytea not null
);
create unique index recoveries_one_open on recoveries (account_id)
    where stage in ('waiting', 'ready');
create index recoveries_due on recoveries (ready_at) where stage in ('waiting', 'ready');

-- E-mail addresses that are not confirmed yet.
create table email_changes (
    account_id text primary key references accounts (id),
    -- Sealed.
    email bytea not null,
    requested_at bigint not null,
    tries integer not null,
    -- The version of the codes key of its code.
    codes_key integer not null,
    mac_key integer not null,
    mac bytea not null
);

-- Transactional outbox, read in commit order.
create table events (
    seq bigint generated always as identity primary key,
    tx bigint not null default (pg_current_xact_id()::text::bigint),
    account_id text not null references accounts (id),
    at bigint not null,
    -- What readers follow in one order: 'security' or 'payments'.
    stream text not null,
    kind text not null,
    transfer_id text references transfers (id),
    deposit_id text references external_deposits (id),
    recovery_id text references recoveries (id),
    -- A former e-mail address, sealed, that is notified as well.
    contact bytea,
    -- Who is notified, if not the owner: the user from whom the wallet was moved.
    telegram_id bigint
);
create index events_order on events (stream, tx, seq);
create index events_of_transfer on events (transfer_id);

-- How far each consumer has acknowledged events.
create table event_cursors (
    consumer text primary key,
    tx bigint not null,
    seq bigint not null
);

create table password_attempts (
    account_id text primary key references accounts (id),
    failures bigint not null,
    locked_until bigint not null
);

-- GCRA: the theoretical arrival time (TAT) of each hashed key, by the database's clock.
create table rate_limits (
    key text primary key,
    tat bigint not null
);

-- Work that one server at a time does.
create table leases (
    name text primary key,
    holder text not null,
    until bigint not null
);

-- Operations that the operator has paused, on all servers. The key database holds the same.
create table switches (
    name text primary key,
    paused boolean not null,
    changed_at bigint not null,
    mac_key integer not null,
    mac bytea not null
);

-- A hash chain (FORMAT.md, "Audit chain").
create table audit (
    seq bigint generated always as identity primary key,
    at bigint not null,
    actor text not null,
    request_id text not null,
    action text not null,
    subject text,
    account_id text,
    telegram_id bigint,
    phase text not null,
    outcome text,
    -- Lines `name=value`.
    details text not null,
    -- Unique, so that two servers cannot fork the chain even if they write without the lock.
    chain_seq bigint not null unique,
    prev_hash bytea not null,
    hash bytea not null,
    -- The MAC of the hash under this version of the audit key.
    key_id integer not null,
    keyed_hash bytea not null
);
create index audit_account on audit (account_id, seq);
-- What an older copy of a row is compared with, and what an emptied limit does not forget. Without
-- payments, which are most rows.
create index audit_changes on audit (account_id, seq) where phase = 'outcome' and outcome = 'ok'
    and action in ('create', 'change_password', 'change_contact', 'confirm_email', 'recover',
    'move_account', 'freeze', 'request_unfreeze', 'unfreeze', 'rescue', 'enter_page',
    'request_page_leave', 'keep_page_only', 'leave_page', 'extend_wait', 'rewrap', 'restore',
    'reseal');
-- The payments that an account signed in a day, which a limit has to count.
create index audit_sends on audit (account_id, at) where action = 'send' and phase = 'outcome'
    and outcome = 'ok';
create index audit_guesses on audit (account_id, at)
    where phase = 'outcome' and outcome in ('wrong_password', 'account_exists');
create index audit_telegram on audit (telegram_id, seq);
create index audit_subject on audit (subject);

-- The end of the chain, in one row that an append locks. An advisory lock would do, but any role
-- that may connect can hold one for ever.
create table audit_head (
    id integer primary key check (id = 1),
    chain_seq bigint not null,
    -- Null before the first row.
    hash bytea
);
insert into audit_head (id, chain_seq) values (1, 0);

create table api_tokens (
    id text primary key,
    name text not null unique,
    -- SHA-256 of the token.
    hash bytea not null unique,
    scopes text not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint,
    -- To the hour, for operators.
    last_used_at bigint,
    mac_key integer not null,
    mac bytea not null
);

-- What one operator proposed and another has to approve.
create table proposals (
    action text not null,
    subject text not null,
    -- What exactly is done (FORMAT.md, "Rescue").
    digest bytea not null,
    person text not null,
    reason text not null,
    proposed_at bigint not null,
    mac_key integer not null,
    mac bytea not null,
    primary key (action, subject)
);

-- Openings of the vault page that Telegram signed. A proof is kept with the audit.
create table launches (
    -- SHA-256 of `message`, in hex.
    id text primary key,
    -- SHA-256 of the key of the page that opened it first.
    key_hash bytea not null unique,
    -- What Telegram signed.
    message text not null,
    signature bytea not null,
    opened_at bigint not null,
    is_proof boolean not null,
    mac_key integer not null,
    mac bytea not null
);
create index launches_to_delete on launches (opened_at) where not is_proof;

-- The sign by which an owner knows the vault page. It decides nothing, so it has no MAC.
create table signs (
    account_id text primary key references accounts (id),
    sign text not null
);

-- Wrapped SCKs that no wallet refers to, and since when.
create table orphaned_scks (
    sck_id text primary key,
    since bigint not null,
    mac_key integer not null,
    mac bytea not null
);

-- Check values of the server keys that wrote the data: another key under a known id is refused.
create table server_key_checks (
    kind text not null,
    key_id integer not null,
    check_value bytea not null,
    primary key (kind, key_id)
);

-- What distinguishes this database from its copies, for the key database: the claim that both hold,
-- and the one that replaces it.
create table key_database_claim (
    id integer primary key check (id = 1),
    current text,
    next text
);

-- The oldest release, by its writer version, that may write.
create table writer_fence (
    id integer primary key check (id = 1),
    oldest integer not null
);
insert into writer_fence (id, oldest) values (1, 1);
