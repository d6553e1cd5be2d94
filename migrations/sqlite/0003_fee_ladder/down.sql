alter table attempts drop column sent_at;
alter table attempts drop column chain_id;
alter table transfers drop column waits_since;
alter table transfers drop column failure;
alter table transfers drop column first_max_priority_fee_per_gas;
alter table transfers drop column first_max_fee_per_gas;
