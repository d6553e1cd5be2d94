drop table switches;
drop table leases;
drop table email_changes;
alter table accounts drop column recovered_at;
alter table accounts drop column email_verified_at;
delete from events where recovery_id is not null or kind like 'email_%';
alter table events drop column contact;
alter table events drop column recovery_id;
drop table recoveries;
create table recoveries (
    id text primary key,
    account_id text not null references accounts (id),
    completed_at bigint not null,
    mac_key integer not null,
    mac blob not null
);
