drop index attempts_hash;
delete from events where incoming_id is not null;
alter table events drop column incoming_id;
drop table incoming;
drop table chain_cursors;
