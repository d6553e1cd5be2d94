drop index events_of_a_transfer;
drop index spends_of_an_account;
alter table spends drop column fee;
