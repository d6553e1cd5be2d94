-- The token that is paid, as it was configured when the transfer was quoted (contract, decimals and
-- symbol); none for the native coin. How much of it came, where the token kept a part.
alter table transfers add column token text;
alter table transfers add column arrived text;

-- A transaction can pay several people, in several tokens. An empty token is the native coin.
-- SQLite can not drop the old constraint: the table is made anew.
create table incoming_new (
    id text primary key,
    chain_id bigint not null,
    tx_hash blob not null,
    account_id text not null references accounts (id),
    from_address text not null,
    value text not null,
    block bigint not null,
    token text not null default '',
    symbol text,
    decimals integer,
    -- When it was told.
    noted_at bigint not null
);
insert into incoming_new (id, chain_id, tx_hash, account_id, from_address, value, block, noted_at)
    select id, chain_id, tx_hash, account_id, from_address, value, block,
        coalesce((select min(at) from events where events.incoming_id = incoming.id), 0)
    from incoming;
drop table incoming;
alter table incoming_new rename to incoming;
create index incoming_received on incoming (account_id, noted_at);
create unique index incoming_once on incoming (chain_id, tx_hash, account_id, token);
