-- Wrapped SCKs that no wallet was seen to refer to, and since when (FORMAT.md, "Server keys").
create table unreferenced_scks (
    sck_id text primary key,
    since bigint not null,
    mac_key integer not null,
    mac blob not null
);
