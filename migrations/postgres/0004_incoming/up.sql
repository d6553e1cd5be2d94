-- Up to which block of a chain money from outside was looked for.
create table chain_cursors (
    chain_id bigint primary key,
    block bigint not null,
    block_hash bytea not null
);

-- Payments from outside, each told once.
create table incoming (
    id text primary key,
    chain_id bigint not null,
    tx_hash bytea not null,
    account_id text not null references accounts (id),
    from_address text not null,
    value text not null,
    block bigint not null,
    unique (chain_id, tx_hash)
);
create index incoming_received on incoming (account_id);

alter table events add column incoming_id text;

-- Tells this system's own transactions from others.
create index attempts_hash on attempts (tx_hash);
