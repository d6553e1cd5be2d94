-- Money and gas prices are decimal text (they exceed 64 bits), ids lower-case UUIDs, addresses
-- lower-case hex, times milliseconds since 1970.

create table accounts (
    id text primary key,
    telegram_id bigint not null unique,
    state text not null,
    mobile bytea,
    email bytea,
    created_at bigint not null,
    mac_key integer not null,
    mac bytea not null
);

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
    version bigint not null,
    updated_at bigint not null
);

-- Every claim on a name that ever was; the active one has no end.
create table names (
    id bigint generated always as identity primary key,
    telegram_id bigint not null,
    canonical text not null,
    shown text not null,
    claimed_at bigint not null,
    seen_at bigint not null,
    moved boolean not null,
    ended_at bigint
);
create unique index names_one_holder on names (canonical) where ended_at is null;
create unique index names_one_name on names (telegram_id) where ended_at is null;
create index names_history on names (canonical);

-- When each Telegram user was last heard of, so that an older update changes nothing.
create table name_observations (
    telegram_id bigint primary key,
    seen_at bigint not null
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
    value text not null,
    gas_limit bigint not null,
    max_fee_per_gas text not null,
    max_priority_fee_per_gas text not null,
    warnings text not null,
    client_ref text,
    state text not null,
    nonce bigint,
    tx_hash bytea unique,
    block bigint,
    fee text,
    created_at bigint not null,
    expires_at bigint not null,
    lease_until bigint not null
);
create index transfers_sent on transfers (from_account, created_at);
create index transfers_received on transfers (to_account, created_at);
create index transfers_due on transfers (lease_until)
    where state in ('signed', 'broadcast', 'mined');
create unique index transfers_one_per_nonce on transfers (chain_id, from_address, nonce)
    where nonce is not null;

-- Signed bytes, sealed; erased at finality.
create table attempts (
    transfer_id text not null references transfers (id),
    step integer not null,
    tx_hash bytea not null,
    sealed bytea,
    primary key (transfer_id, step)
);

create table nonces (
    chain_id bigint not null,
    address text not null,
    next bigint not null,
    primary key (chain_id, address)
);

-- An outbox, read in commit order.
create table events (
    seq bigint generated always as identity primary key,
    tx bigint not null default (pg_current_xact_id()::text::bigint),
    account_id text not null references accounts (id),
    at bigint not null,
    kind text not null,
    transfer_id text references transfers (id)
);
create index events_order on events (tx, seq);

create table event_cursors (
    consumer text primary key,
    tx bigint not null,
    seq bigint not null
);

create table recoveries (
    id text primary key,
    account_id text not null references accounts (id),
    completed_at bigint not null,
    mac_key integer not null,
    mac bytea not null
);

create table password_attempts (
    account_id text primary key references accounts (id),
    failures bigint not null,
    locked_until bigint not null
);

-- GCRA: the theoretical arrival time of each key, on the database's clock.
create table limits (
    key text primary key,
    tat bigint not null
);

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
    outcome text
);
create index audit_account on audit (account_id);

create table tokens (
    id text primary key,
    name text not null unique,
    hash bytea not null unique,
    scopes text not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint,
    mac_key integer not null,
    mac bytea not null
);

-- Tells a server that was started with another key than the data was written with.
create table server_key_checks (
    kind text not null,
    key_id integer not null,
    check_value bytea not null,
    primary key (kind, key_id)
);
