-- The audit's hash chain (FORMAT.md, "Audit chain"). Nullable: servers of the release before go on
-- writing rows without a link, and so are all rows that are there now.
alter table audit
    add column chain_seq bigint,
    add column key_id integer,
    add column prev_hash bytea,
    add column hash bytea;
-- Unique, so that a chain can not fork even if two write it without a lock.
create unique index audit_chain on audit (chain_seq) where chain_seq is not null;
create index audit_telegram on audit (telegram_id);
