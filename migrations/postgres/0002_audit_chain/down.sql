drop index audit_telegram;
drop index audit_chain;
alter table audit
    drop column chain_seq,
    drop column key_id,
    drop column prev_hash,
    drop column hash;
