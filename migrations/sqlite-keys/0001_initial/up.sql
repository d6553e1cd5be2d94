-- The embedded key database, which stands in for MongoDB.

create table wrapped_scks (
    id text primary key,
    account_id text not null,
    master_key text not null,
    bytes blob not null
);

-- Signed statements of where the audit chain ended (FORMAT.md, "Audit checkpoint").
create table audit_checkpoints (
    id integer primary key autoincrement,
    line text not null
);

-- The account database that these keys belong to: they are used and deleted for no other.
create table owner (
    id integer primary key check (id = 1),
    identity text not null,
    claim text not null
);

-- What an operator paused (FORMAT.md, "Row `switches`").
create table pause (
    name text primary key,
    line text not null
);
