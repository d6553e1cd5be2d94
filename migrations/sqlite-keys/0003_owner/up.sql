-- Whose keys these are: nothing is removed for another account database.
create table owner (
    id integer primary key check (id = 1),
    identity text not null
);
