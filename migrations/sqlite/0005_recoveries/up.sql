-- A recovery has steps now, and waits between them. The rows of the release before only told
-- repeats of a request that was done. An older server can not write to the new table: it answers
-- recoveries with an error, and can not leave the waits out.
drop table recoveries;

create table recoveries (
    id text primary key,
    account_id text not null references accounts (id),
    stage text not null,
    code text not null,
    code_until bigint,
    code_tries integer not null,
    requested_at bigint not null,
    ready_at bigint not null,
    expires_at bigint not null,
    version bigint not null,
    mac_key integer not null,
    mac blob not null
);
create unique index recoveries_one_open on recoveries (account_id)
    where stage in ('waiting', 'ready');
create index recoveries_due on recoveries (ready_at) where stage in ('waiting', 'ready');

alter table events add column recovery_id text;
-- The address, sealed, that is to be told as well: one that is the account's no more.
alter table events add column contact blob;

-- Covered by the row's MAC where they are not null.
alter table accounts add column email_verified_at bigint;
alter table accounts add column recovered_at bigint;

-- An address that was asked for and is not confirmed.
create table email_changes (
    account_id text primary key references accounts (id),
    email blob not null,
    requested_at bigint not null,
    tries integer not null,
    mac_key integer not null,
    mac blob not null
);

-- What one server at a time does, for as long as it says so again.
create table leases (
    name text primary key,
    holder text not null,
    until bigint not null
);

-- What the operator has stopped for everybody.
create table switches (
    name text primary key,
    since bigint not null
);
