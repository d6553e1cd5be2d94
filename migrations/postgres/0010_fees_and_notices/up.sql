-- The highest fee of a signed transfer in wei, and what the network really took once that is known: it
-- counts into the native coin's limit. Servers that do not count fees leave it empty.
alter table spends add column fee text;
create index spends_of_an_account on spends (account_id, at);

-- Whether somebody was told of a transfer before.
create index events_of_a_transfer on events (transfer_id);
