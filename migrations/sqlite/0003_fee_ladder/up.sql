-- A transfer is signed at several prices. The old columns hold the highest of them, which an older
-- server takes for the only one; without the new ones there is no other.
alter table transfers add column first_max_fee_per_gas text;
alter table transfers add column first_max_priority_fee_per_gas text;

-- Why it failed, and since when its sender knows that it waits for the network.
alter table transfers add column failure text;
alter table transfers add column waits_since bigint;

alter table attempts add column chain_id bigint;
alter table attempts add column sent_at bigint;
update attempts set chain_id =
    (select transfers.chain_id from transfers where transfers.id = attempts.transfer_id);
