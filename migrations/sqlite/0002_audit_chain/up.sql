-- The audit's hash chain (FORMAT.md, "Audit chain"). Nullable: all rows that are there now have no
-- link.
alter table audit add column chain_seq bigint;
alter table audit add column key_id integer;
alter table audit add column prev_hash blob;
alter table audit add column hash blob;
-- Unique, so that a chain can not fork even if two write it without a lock.
create unique index audit_chain on audit (chain_seq) where chain_seq is not null;
create index audit_telegram on audit (telegram_id);
