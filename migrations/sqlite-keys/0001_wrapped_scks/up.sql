-- What MongoDB holds elsewhere: wrapped SCKs and nothing else.
create table wrapped_scks (
    id text primary key,
    account_id text not null,
    master_key text not null,
    bytes blob not null
);
