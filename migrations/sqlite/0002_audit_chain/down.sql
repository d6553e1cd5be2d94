drop index audit_telegram;
drop index audit_chain;
alter table audit drop column chain_seq;
alter table audit drop column key_id;
alter table audit drop column prev_hash;
alter table audit drop column hash;
