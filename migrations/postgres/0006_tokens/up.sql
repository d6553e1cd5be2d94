-- The token that is paid, as it was configured when the transfer was quoted (contract, decimals and
-- symbol); none for the native coin. How much of it came, where the token kept a part.
alter table transfers add column token text;
alter table transfers add column arrived text;

-- A transaction can pay several people, in several tokens. An empty token is the native coin.
alter table incoming add column token text not null default '';
alter table incoming add column symbol text;
alter table incoming add column decimals integer;
alter table incoming drop constraint incoming_chain_id_tx_hash_key;
create unique index incoming_once on incoming (chain_id, tx_hash, account_id, token);

-- When it was told; a server of the release before leaves it to the database.
alter table incoming add column noted_at bigint not null
    default (extract(epoch from clock_timestamp()) * 1000)::bigint;
update incoming set noted_at = events.at from events where events.incoming_id = incoming.id;
drop index incoming_received;
create index incoming_received on incoming (account_id, noted_at);
