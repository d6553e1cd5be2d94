-- What signed transfers take of a day's limit: written with the signature, and removed if the transfer
-- fails. An empty asset is the native coin, else it is a token's contract.
create table spends (
    transfer_id text primary key references transfers (id),
    account_id text not null references accounts (id),
    asset text not null,
    units text not null,
    at bigint not null
);
create index spends_of_a_day on spends (account_id, asset, at);

-- What owners set for themselves. A higher limit waits in `later` until `later_at`.
create table spending_limits (
    account_id text not null references accounts (id),
    asset text not null,
    units text not null,
    later text,
    later_at bigint,
    mac_key integer not null,
    mac bytea not null,
    primary key (account_id, asset)
);
